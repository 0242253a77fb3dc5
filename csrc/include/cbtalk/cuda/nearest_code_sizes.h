#pragma once

#include <cstdint>

#include "cbtalk/host_device.h"

// Division of work of the nearest-code kernels on a GPU.

namespace cbtalk::nearest_code {

constexpr int kRowTile = 128;  // rows that a block searches for
constexpr int kPanel = 128;    // codes that it compares at a time
constexpr int kDepth = 16;     // columns of rows and codes that are in shared memory at a time
constexpr int kThreads = 256;

// Blocks below which a search that has few rows divides the codes as well: a large GPU's multiprocessors.
constexpr int64_t kBlocksWanted = 132;

// Sorted rows that are summed together where they all belong to one code.
constexpr int64_t kChunk = 64;

// Heads lie along the third dimension of a grid, and the codes of all heads are numbered with 32 bits, filled up to
// panels.
constexpr int64_t kMaxHeads = 65535;
constexpr int64_t kMaxCodes = (int64_t{1} << 31) - 1024;

CBTALK_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

CBTALK_HOST_DEVICE constexpr int64_t panels(int64_t K) { return ceil_div(K, kPanel); }
CBTALK_HOST_DEVICE constexpr int64_t padded_codes(int64_t K) { return panels(K) * kPanel; }
CBTALK_HOST_DEVICE constexpr int64_t padded_depth(int64_t D) { return ceil_div(D, kDepth) * kDepth; }
CBTALK_HOST_DEVICE constexpr int64_t panel_floats(int64_t D) { return kPanel * padded_depth(D); }

// Slots of the hash table of the codes of a head: a power of two, at most half of them taken.
CBTALK_HOST_DEVICE constexpr int64_t table_slots(int64_t K) {
  int64_t slots = 2;
  while (slots < 2 * K) slots *= 2;
  return slots;
}

// Blocks among which the panels of a head are divided.
constexpr int64_t splits(int64_t H, int64_t N, int64_t K) {
  const int64_t wanted = kBlocksWanted / (H * ceil_div(N, kRowTile));
  return wanted < 1 ? 1 : wanted < panels(K) ? wanted : panels(K);
}

// Blocks that read the winners of a head, each a warp at a time; what they sum is added up in their order.
constexpr int64_t winner_blocks(int64_t N) {
  const int64_t blocks = ceil_div(N, kThreads / 32);
  return blocks < 1024 ? blocks : 1024;
}

// The workspace: what is zeros at first, then the blocks' partial sums, then the packed codebooks. The zeros are of
// each head a hash table, the squared lengths of the codes and that of the longest; and how many blocks of winners are
// done.
constexpr int64_t zero_bytes(int64_t H, int64_t K) {
  return H * (table_slots(K) * 8 + padded_codes(K) * 4) + ceil_div(H + 1, 4) * 16;
}
constexpr int64_t partial_bytes(int64_t H, int64_t N) { return ceil_div(H * winner_blocks(N), 2) * 16; }
constexpr int64_t workspace_bytes(int64_t H, int64_t N, int64_t K, int64_t D) {
  return zero_bytes(H, K) + partial_bytes(H, N) + H * panels(K) * panel_floats(D) * static_cast<int64_t>(sizeof(float));
}

constexpr int64_t chunks(int64_t rows) { return ceil_div(rows, kChunk); }

// A radix sort takes a pass for each byte of its keys.
constexpr int64_t key_bytes(int64_t H, int64_t K) { return H * K <= 1 << 15 ? 2 : 4; }

}  // namespace cbtalk::nearest_code
