"""Which points of a face the first keypoints are guided to."""

# Points of `FaceMesh`, and beside each the one that a mirrored picture has in its place.
MOUTH_CORNERS, LIPS = (468, 478), (503, 493)  # left and right in the picture; the inner edges, upper and lower
UPPER_LIDS, LOWER_LIDS, PUPILS = (560, 631), (552, 623), (690, 695)
NOSE, CHIN, BROWS, CHEEKS = 1, 152, (105, 334), (234, 454)
PAIRS = (MOUTH_CORNERS, UPPER_LIDS, LOWER_LIDS, PUPILS, BROWS, CHEEKS)
POINTS = (*(point for pair in PAIRS for point in pair), *LIPS, NOSE, CHIN)
MIRRORED = (*(index for first in range(0, 2 * len(PAIRS), 2) for index in (first + 1, first)), 12, 13, 14, 15)
