#pragma once

#include <cstdint>

#include "cbtalk/host_device.h"

// How the nearest-code kernels divide their work on a GPU.

namespace cbtalk::nearest_code {

constexpr int kRowTile = 128;  // rows that a block searches for
constexpr int kPanel = 128;    // codes that it compares at a time
constexpr int kDepth = 16;     // columns of rows and codes that are in shared memory at a time
constexpr int kThreads = 256;

// Blocks below which a search that has few rows divides the codes as well: a large GPU's multiprocessors.
constexpr int64_t kBlocksWanted = 132;

// Sorted rows that are summed together where they all belong to one code.
constexpr int64_t kChunk = 64;

CBTALK_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

CBTALK_HOST_DEVICE constexpr int64_t panels(int64_t K) { return ceil_div(K, kPanel); }
CBTALK_HOST_DEVICE constexpr int64_t padded_depth(int64_t D) { return ceil_div(D, kDepth) * kDepth; }
CBTALK_HOST_DEVICE constexpr int64_t panel_floats(int64_t D) { return kPanel * (padded_depth(D) + 1); }

// Blocks among which the panels are divided.
constexpr int64_t splits(int64_t N, int64_t K) {
  const int64_t wanted = kBlocksWanted / ceil_div(N, kRowTile);
  return wanted < 1 ? 1 : wanted < panels(K) ? wanted : panels(K);
}

// Blocks that read the winners, each a warp at a time; their sums of distances are added up in their order.
constexpr int64_t winner_blocks(int64_t N) {
  const int64_t blocks = ceil_div(N, kThreads / 32);
  return blocks < 1024 ? blocks : 1024;
}

// The workspace: winner_blocks(N) doubles, filled up to 16 bytes, as one float is; then the packed codebook.
constexpr int64_t partial_bytes(int64_t N) { return ceil_div(winner_blocks(N), 2) * 16; }
constexpr int64_t workspace_bytes(int64_t N, int64_t K, int64_t D) {
  return partial_bytes(N) + 16 + panels(K) * panel_floats(D) * static_cast<int64_t>(sizeof(float));
}

constexpr int64_t chunks(int64_t N) { return ceil_div(N, kChunk); }

}  // namespace cbtalk::nearest_code
