"""Which points of a face the first keypoints are guided to."""

# Points of `FaceMesh`, and beside each the one that a mirrored picture has in its place.
MOUTH_CORNERS, LIPS = (468, 478), (503, 493)  # left and right in the picture; the inner edges, upper and lower
UPPER_LIDS, LOWER_LIDS, PUPILS = (560, 631), (552, 623), (690, 695)
NOSE, CHIN, BROWS, CHEEKS = 1, 152, (105, 334), (234, 454)
PAIRS = (MOUTH_CORNERS, UPPER_LIDS, LOWER_LIDS, PUPILS, BROWS, CHEEKS)
PAIRED = 2 * len(PAIRS)
POINTS = (*(point for pair in PAIRS for point in pair), *LIPS, NOSE, CHIN)
EXPRESSIVE = (slice(0, 6), slice(12, 14))  # of POINTS: mouth and lids
MIRRORED = (*(index ^ 1 for index in range(PAIRED)), *range(PAIRED, len(POINTS)))
