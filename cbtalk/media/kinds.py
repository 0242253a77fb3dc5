"""The one table of the kinds of files that are read, for all commands."""

# Containers of one self-contained file: FFmpeg's demuxers and the suffixes that such files have. Playlists, image
# sequences and text art, which FFmpeg also calls formats, are left out: they would read other files than the one that
# was named.
VIDEO_KINDS: dict[str, tuple[str, ...]] = {
    "mov,mp4": (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v"),
    "matroska,webm": (".mkv", ".webm"),
    "avi": (".avi", ".divx"),
    "gif": (".gif",),
    "apng": (".apng",),
    "mpegts": (".ts", ".mts", ".m2ts"),
    "mpeg": (".mpg", ".mpeg", ".vob"),
    "mpegvideo": (".m2v", ".m1v"),
    "flv": (".flv",),
    "asf": (".wmv", ".asf"),
    "ogg": (".ogv", ".ogg", ".ogm"),
    "ivf": (".ivf",),
    "obu": (".obu",),
    "nut": (".nut",),
    "mxf": (".mxf",),
    "dv": (".dv",),
    "h264": (".h264", ".264"),
    "hevc": (".h265", ".265", ".hevc"),
    "m4v": (),
    "yuv4mpegpipe": (".y4m",),
}
SOUND_KINDS = ("wav", "mp3", "flac", "aac", "aiff", "w64")  # files of sound alone, beside those of the table
DEMUXERS = ",".join([*VIDEO_KINDS, *SOUND_KINDS])
VIDEO_SUFFIXES = frozenset(suffix for suffixes in VIDEO_KINDS.values() for suffix in suffixes)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".avif"})

# A packet carries the time of its decoding only; FFmpeg makes up when it is shown.
DECODING_TIMES_ONLY = frozenset({"avi"})
# Packets lie one behind the other, so that a hole between them is damage that the demuxer passed over.
CONTIGUOUS = frozenset({"matroska", "flv"})
# Written as it comes in, sound and images side by side, by recorders that may be stopped and started again.
STREAMED = frozenset({"matroska", "mpegts", "mpeg", "flv", "asf", "ogg"})
