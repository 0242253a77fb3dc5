#pragma once

// Places at which the output pixels of flow_warp read: computed once for a tile of pixels, used for all channels.

#include "bfloat16.h"
#include "cbtalk/flow_warp.h"
#include "cbtalk/geometry.h"
#include "simd.h"

namespace cbtalk::CBTALK_ISA {

constexpr int kTile = 8192;              // pixels; 300 KB of stack. Longer tiles read fewer lines of a plane twice
constexpr int kChannelsLastTile = 512;   // read once a pixel, not once a channel: better when they stay in the L1 cache
constexpr int kPadded = kTile + kWidth;  // whole vectors may be stored past the last pixel

// Output pixels that follow one another in one image: several whole rows, or a part of one row.
struct Tile {
  int64_t image;      // b * N + n
  int64_t first_pixel;  // y * Wo + x
  int count;
  alignas(64) float x[kPadded];  // sampling coordinate in [-1, 1]
  alignas(64) float y[kPadded];
  alignas(64) float occlusion[kPadded];
  alignas(64) int32_t offset[kPadded];  // of the top left tap from the image's or the plane's first element
  alignas(64) int32_t inside[kPadded];  // -1, or 0 where every tap is outside
  alignas(64) float weight[4][kPadded];  // top left, top right, bottom left, bottom right; times the occlusion
};

struct Pairs {
  Vf left, right;
};

#if defined(__SSE2__)
// left0, right0, left1, right1
static inline __m128 load_two_pairs(const float* plane, const int32_t* offset) {
  const __m128 first = _mm_castpd_ps(_mm_load_sd((const double*)(plane + offset[0])));
  return _mm_loadh_pi(first, (const __m64*)(plane + offset[1]));
}
#endif

// Both columns of a tap for kWidth pixels. NCHW: the right one is the next element.
static inline Pairs gather_pairs(const float* plane, const int32_t* offset, int64_t right) {
#if defined(__AVX512F__)
  if (right == 1) {
    const __m256i low_offset = _mm256_loadu_si256((const __m256i*)offset);
    const __m256i high_offset = _mm256_loadu_si256((const __m256i*)(offset + 8));
    const __m512 low = (__m512)_mm512_i32gather_epi64(low_offset, plane, 4);
    const __m512 high = (__m512)_mm512_i32gather_epi64(high_offset, plane, 4);
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return {(Vf)_mm512_permutex2var_ps(low, even, high), (Vf)_mm512_permutex2var_ps(low, odd, high)};
  }
#elif defined(__AVX2__)
  if (right == 1) {  // eight loads of a pair are faster than two gathers
    const __m128 p01 = load_two_pairs(plane, offset), p23 = load_two_pairs(plane, offset + 2);
    const __m128 p45 = load_two_pairs(plane, offset + 4), p67 = load_two_pairs(plane, offset + 6);
    const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(p01), p45, 1);
    const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(p23), p67, 1);
    return {(Vf)_mm256_shuffle_ps(low, high, 0x88), (Vf)_mm256_shuffle_ps(low, high, 0xdd)};
  }
#elif defined(__SSE2__)
  if (right == 1) {
    const __m128 low = load_two_pairs(plane, offset), high = load_two_pairs(plane, offset + 2);
    return {(Vf)_mm_shuffle_ps(low, high, 0x88), (Vf)_mm_shuffle_ps(low, high, 0xdd)};
  }
#endif
  Pairs pairs;
  for (int lane = 0; lane < kWidth; ++lane) {
    pairs.left[lane] = plane[offset[lane]];
    pairs.right[lane] = plane[offset[lane] + right];
  }
  return pairs;
}

static inline Pairs gather_pairs(const Bfloat16* plane, const int32_t* offset, int64_t right) {
#if defined(__AVX512F__)
  if (right == 1) {
    const __m512i both = _mm512_i32gather_epi32(_mm512_loadu_si512(offset), plane, 2);
    return {(Vf)_mm512_slli_epi32(both, 16), (Vf)_mm512_and_si512(both, _mm512_set1_epi32(-65536))};
  }
#elif defined(__AVX2__)
  if (right == 1) {
    const __m256i both = _mm256_i32gather_epi32((const int*)plane, _mm256_loadu_si256((const __m256i*)offset), 2);
    return {(Vf)_mm256_slli_epi32(both, 16), (Vf)_mm256_and_si256(both, _mm256_set1_epi32(-65536))};
  }
#endif
  Vu left, next;
  for (int lane = 0; lane < kWidth; ++lane) {
    left[lane] = static_cast<uint32_t>(plane[offset[lane]]) << 16;
    next[lane] = static_cast<uint32_t>(plane[offset[lane] + right]) << 16;
  }
  return {(Vf)left, (Vf)next};
}

// A component of the flow, or the occlusion, resized to the output while it is read.
struct ResizedMap {
  const float* data;
  int64_t row_stride, column_stride;
  int32_t height, width;
  float row_scale, column_scale;
  bool same_size;
};

static inline ResizedMap resized_map(const float* data, int64_t height, int64_t width, int64_t row_stride,
                                     int64_t column_stride, const FlowWarpParams& params) {
  return {data,
          row_stride,
          column_stride,
          static_cast<int32_t>(height),
          static_cast<int32_t>(width),
          resize_scale(height, params.out_height),
          resize_scale(width, params.out_width),
          height == params.out_height && width == params.out_width};
}

// A resized row is blended down its columns before it is along them: at most this many source columns at a time.
constexpr int kColumns = kTile + 2;

// Columns [first, first + count) of output row y; up to kWidth - 1 more are written.
static inline void read_row(const ResizedMap& map, int32_t y, int32_t first, int count, float* target) {
  if (map.same_size) {
    const float* row = map.data + y * map.row_stride + first * map.column_stride;
    for (int i = 0; i < count; ++i) target[i] = row[i * map.column_stride];
    return;
  }
  const auto rows = resize_taps(y, map.row_scale, map.height);
  const float* low_row = map.data + rows.low * map.row_stride;
  const float* high_row = map.data + rows.high * map.row_stride;
  const auto blend_column = [&](int64_t column) {
    const int64_t offset = column * map.column_stride;
    return fma(high_row[offset], rows.high_weight, low_row[offset] * (1.0f - rows.high_weight));
  };
  const int32_t begin = resize_taps(first, map.column_scale, map.width).low;
  const int32_t end = resize_taps(first + count - 1, map.column_scale, map.width).high + 1;
  if (end - begin > kColumns) {  // shrunk so much that most columns are not needed
    for (int i = 0; i < count; ++i) {
      const auto taps = resize_taps(first + i, map.column_scale, map.width);
      target[i] = fma(blend_column(taps.high), taps.high_weight, blend_column(taps.low) * (1.0f - taps.high_weight));
    }
    return;
  }
  float columns[kColumns + 1];  // the last one twice: it has no right neighbour
  for (int32_t column = begin; column <= end; ++column) {
    columns[column - begin] = blend_column(column < end ? column : end - 1);
  }
  for (int i = 0; i < count; i += kWidth) {
    const Vf position = to_float(iota() + (first + i)) * map.column_scale;
    const Vi floor = to_int(position);
    const auto taps = resize_taps<Vf, Vi>(floor, position - to_float(floor), end);
    int32_t index[kWidth];
    store(index, taps.low - begin);
    const Pairs pairs = gather_pairs(columns, index, 1);
    store(target + i, fma(pairs.right, taps.high_weight, pairs.left * (1.0f - taps.high_weight)));
  }
}

// floor of the position, and what is above it. A NaN and what is far outside become -2 or size + 1: no tap there.
static inline Vi floor_position(Vf position, int32_t size, Vf* fraction) {
  const Vf bounded = min(max(position, broadcast(-2.0f)), broadcast(static_cast<float>(size) + 1.0f));
  const Vi truncated = to_int(bounded);
  const Vi low = truncated + (to_float(truncated) > bounded);
  *fraction = bounded - to_float(low);
  return low;
}

// One axis of the feature, of `size` pixels.
struct Axis {
  AxisMapping mapping;
  int32_t size;
};

static inline Axis make_axis(int64_t size, bool align_corners) {
  return {axis_mapping(size, align_corners), static_cast<int32_t>(size)};
}

// The taps of kWidth coordinates.
template <Padding kPadding>
static inline SampleTaps<Vf, Vi> axis_taps(const float* coordinates, const Axis& axis) {
  const auto to_pixels = [&](Vf inner) {
    return fma(inner, broadcast(axis.mapping.scale), broadcast(axis.mapping.shift));
  };
  const PaddedPosition<Vf> padded = padded_position<kPadding>(load(coordinates), axis.size, to_pixels);
  Vf fraction;
  const Vi low = floor_position(padded.position, axis.size, &fraction);
  return sample_taps<Vf, Vi>(low, fraction, padded.slope, axis.size);
}

// Calls body.operator()<padding>().
template <class Body>
static inline void with_padding(Padding padding, Body body) {
  switch (padding) {
    case Padding::border:
      return body.template operator()<Padding::border>();
    case Padding::reflection:
      return body.template operator()<Padding::reflection>();
    default:
      return body.template operator()<Padding::zeros>();
  }
}

// Fills offset, inside and weight from the coordinates and the occlusion.
template <Padding kPadding>
static inline void place_taps(const FlowWarpParams& params, Tile& tile) {
  const auto row_stride = static_cast<int32_t>(params.feature_stride[2]);
  const auto column_stride = static_cast<int32_t>(params.feature_stride[3]);
  const Axis y_axis = make_axis(params.height, params.align_corners);
  const Axis x_axis = make_axis(params.width, params.align_corners);
  for (int i = 0; i < tile.count; i += kWidth) {
    const SampleTaps<Vf, Vi> rows = axis_taps<kPadding>(tile.y + i, y_axis);
    const SampleTaps<Vf, Vi> columns = axis_taps<kPadding>(tile.x + i, x_axis);
    const Vf occlusion = load(tile.occlusion + i);
    store(tile.offset + i, rows.base * row_stride + columns.base * column_stride);
    store(tile.inside + i, (rows.weight[0] + rows.weight[1] > 0.0f) & (columns.weight[0] + columns.weight[1] > 0.0f));
    for (int tap = 0; tap < 4; ++tap) {
      store(tile.weight[tap] + i, rows.weight[tap / 2] * columns.weight[tap % 2] * occlusion);
    }
  }
}

static inline void place_row(const FlowWarpParams& params, Tile& tile, int at, int32_t y, int32_t first, int count) {
  const int64_t b = tile.image / params.flows, n = tile.image % params.flows;
  const float* flow = params.flow + b * params.flow_stride[0] + n * params.flow_stride[1];
  const ResizedMap map_x = resized_map(flow, params.flow_height, params.flow_width, params.flow_stride[2],
                                       params.flow_stride[3], params);
  ResizedMap map_y = map_x;
  map_y.data += params.flow_stride[4];
  read_row(map_x, y, first, count, tile.x + at);
  read_row(map_y, y, first, count, tile.y + at);
  if (params.occlusion == nullptr) {
    for (int i = 0; i < count; ++i) tile.occlusion[at + i] = 1.0f;
  } else {
    read_row(resized_map(params.occlusion + b * params.occlusion_stride[0], params.occlusion_height,
                         params.occlusion_width, params.occlusion_stride[2], params.occlusion_stride[3], params),
             y, first, count, tile.occlusion + at);
  }
}

// The lanes past the last pixel have no tap in any mode of padding.
static inline void place_nothing_past_the_end(Tile& tile) {
  for (int i = tile.count; i < tile.count + kWidth; ++i) {
    tile.x[i] = tile.y[i] = __builtin_nanf("");
    tile.occlusion[i] = 0.0f;
  }
}

// Calls body() for every tile of output rows [begin, end), counted through all images; `tile` holds what it needs.
template <class Body>
static inline void for_each_tile(const FlowWarpParams& params, int64_t begin, int64_t end, Tile& tile, Body body) {
  const int64_t Ho = params.out_height, Wo = params.out_width;
  const int64_t longest = params.channels_last ? kChannelsLastTile : kTile;
  const int64_t whole_rows = Wo <= longest ? longest / Wo : 1;
  for (int64_t row = begin, rows; row < end; row += rows) {
    const int64_t y = row % Ho;
    rows = whole_rows;
    if (rows > end - row) rows = end - row;
    if (rows > Ho - y) rows = Ho - y;
    tile.image = row / Ho;
    for (int64_t first = 0; first < Wo; first += longest) {
      const int columns = static_cast<int>(Wo - first < longest ? Wo - first : longest);
      tile.first_pixel = y * Wo + first;
      tile.count = static_cast<int>(rows) * columns;
      for (int64_t r = 0; r < rows; ++r) {
        place_row(params, tile, static_cast<int>(r) * columns, static_cast<int32_t>(y + r),
                  static_cast<int32_t>(first), columns);
      }
      place_nothing_past_the_end(tile);
      with_padding(params.padding, [&]<Padding kPadding>() { place_taps<kPadding>(params, tile); });
      body();
    }
  }
}

// From a tap to its right and its lower neighbour, in elements; 0 where the feature has one column or one row.
struct TapSteps {
  int64_t right, down;
};

static inline TapSteps tap_steps(const FlowWarpParams& params) {
  return {params.width > 1 ? params.feature_stride[3] : 0, params.height > 1 ? params.feature_stride[2] : 0};
}

}  // namespace cbtalk::CBTALK_ISA
