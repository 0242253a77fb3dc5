#pragma once

// 3 x 3 convolution of channels_last images at inference, by Winograd's minimal filtering.
//
// The products of a tile of results are taken at points, each a matrix product over many tiles:
// F(4 x 4, 3 x 3): 36 points for 16 results instead of 144 products a pair of channels. The interpolation points 0,
// +-11/16, +-3/2 and infinity keep the error below twice that of the direct sum; the usual 0, +-1, +-2 lose seven times as much.
// F(2 x 2, 3 x 3): 16 points for 4 results instead of 36 products, for small images.
// The same on an image first enlarged by two (nearest neighbour): the middle lines of a tile are equal and their difference
// vanishes, 9 points are left, and the enlarged image never exists.

#include <cstdint>

#include "dispatch.h"

namespace cbtalk {

struct Conv3x3Params {
  int64_t batch, height, width;  // of the result
  int64_t channels, out_channels;
  int64_t side;           // of a tile of inputs: 6, 4, or 3 for an x of half the height and width
  float leak;             // slope of the result below zero: 1 = none, 0 = ReLU
  const float* x;         // (B, H, W, C) or (B, H / 2, W / 2, C)
  const float* weight;    // (points, out_panels, C, kPanel), transformed
  const float* bias;      // (O)
  const float* residual;  // (B, H, W, O) or null: added at the end
  float* y;               // (B, H, W, O)

  static constexpr int64_t kPanel = 16;  // output channels side by side in the transformed weight

  bool upsample() const { return side == 3; }
  int64_t points() const { return side * side; }
  int64_t tile() const { return side == 6 ? 4 : 2; }  // side of a tile of results
  int64_t out_panels() const { return (out_channels + kPanel - 1) / kPanel; }
  int64_t padded_channels() const { return (channels + kPanel - 1) / kPanel * kPanel; }
  int64_t padded_out_channels() const { return out_panels() * kPanel; }
  int64_t tile_rows() const { return (height + tile() - 1) / tile(); }
  int64_t tile_columns() const { return (width + tile() - 1) / tile(); }
  int64_t tiles() const { return batch * tile_rows() * tile_columns(); }

  // Tiles are worked on in blocks that keep the scratch near a megabyte, of 24 at least to amortise reading the weight,
  // and in a multiple of four blocks, for the threads, where that leaves 12 tiles to each.
  int64_t blocks() const {
    const int64_t fitting = (1 << 20) / (points() * 4 * (padded_channels() + padded_out_channels()));
    const int64_t most = fitting < 24 ? 24 : fitting > 96 ? 96 : fitting;
    const int64_t fewest = (tiles() + most - 1) / most, shared = (fewest + 3) / 4 * 4;
    return shared * 12 <= tiles() ? shared : fewest;
  }
  int64_t block() const { return tiles() ? (tiles() + blocks() - 1) / blocks() : 0; }
  int64_t scratch_size() const { return points() * block() * (padded_channels() + padded_out_channels()); }
};

// The blocks [begin, end) of tiles; scratch holds scratch_size() floats and belongs to the caller's thread.
CBTALK_CPU_KERNEL(conv3x3_forward, (const Conv3x3Params& params, float* scratch, int64_t begin, int64_t end))

}  // namespace cbtalk
