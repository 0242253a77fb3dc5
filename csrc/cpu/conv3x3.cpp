#include "cbtalk/conv3x3.h"

#include "simd.h"

namespace cbtalk::CBTALK_ISA {

constexpr int kPanel = Conv3x3Params::kPanel;
constexpr int kVectors = kPanel / kWidth;
constexpr int64_t kChunk = 64;
#if defined(__AVX512F__)
constexpr int kPanels = 4, kRows = 6;  // 24 sums in 32 registers
#elif defined(__AVX2__)
constexpr int kPanels = 1, kRows = 6;  // 12 sums in 16 registers
#else
constexpr int kPanels = 1, kRows = 3;
#endif

struct Tile {
  int64_t image, row, column;
};

static inline Tile tile_at(const Conv3x3Params& p, int64_t index) {
  const int64_t columns = p.tile_columns(), rows = p.tile_rows();
  return {index / (rows * columns), index / columns % rows, index % columns};
}

// The pixels under a tile, of the half-size image where it is enlarged. They may reach over the edge.
struct Patch {
  const float* corner;  // pixel (0, 0), not to be read where it lies outside
  int64_t row_stride, row, column, height, width;  // of the image; (row, column) is the corner
};

template <int kSide>
static inline Patch patch_under(const Conv3x3Params& p, Tile tile) {
  const int64_t shrink = kSide == 3 ? 2 : 1, step = p.tile() / shrink;
  const int64_t height = p.height / shrink, width = p.width / shrink;
  const int64_t row = tile.row * step - 1, column = tile.column * step - 1;
  const int64_t offset = ((tile.image * height + row) * width + column) * p.channels;
  return {p.x + offset, width * p.channels, row, column, height, width};
}

// The interpolation points of F(4, 3): 0, +-kA, +-kB, infinity. All constants below are exact in float32.
constexpr float kA = 0.6875f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;

// One line of the input transform.
static inline void transform_line(const Vf (&d)[6], Vf (&out)[6]) {
  const Vf even_a = fma(d[2], broadcast(-kB2), d[4]), odd_a = fma(d[1], broadcast(-kB2), d[3]) * kA;
  const Vf even_b = fma(d[2], broadcast(-kA2), d[4]), odd_b = fma(d[1], broadcast(-kA2), d[3]) * kB;
  out[0] = fma(d[2], broadcast(-(kA2 + kB2)), fma(d[0], broadcast(kA2 * kB2), d[4]));
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = fma(d[3], broadcast(-(kA2 + kB2)), fma(d[1], broadcast(kA2 * kB2), d[5]));
}

// The points of F(2, 3): 0, +-1, infinity.
static inline void transform_line(const Vf (&d)[4], Vf (&out)[4]) {
  out[0] = d[2] - d[0];
  out[1] = d[1] + d[2];
  out[2] = d[2] - d[1];
  out[3] = d[1] - d[3];
}

// The line d0, d1, d1, d2 of an enlarged image; the third entry is zero and left out.
static inline void transform_line(const Vf (&d)[3], Vf (&out)[3]) {
  out[0] = d[1] - d[0];
  out[1] = d[1] + d[1];
  out[2] = d[1] - d[2];
}

// The points of one tile, planes apart. Not kWhole: pixels outside count as zero, and the last vector may be short.
template <int kSide, bool kWhole>
static inline void transform_patch(const Patch& patch, int64_t channels, float* values, int64_t plane) {
  for (int64_t c = 0; c < channels; c += kWidth) {
    const int lanes = channels - c < kWidth ? int(channels - c) : kWidth;
    Vf lines[kSide][kSide];  // transformed along the rows, transposed
    for (int i = 0; i < kSide; ++i) {
      Vf row[kSide], line[kSide];
      for (int j = 0; j < kSide; ++j) {
        const int64_t offset = i * patch.row_stride + j * channels + c;
        if constexpr (kWhole) {
          row[j] = load(patch.corner + offset);
        } else {
          const int64_t y = patch.row + i, x = patch.column + j;
          const bool inside = y >= 0 && y < patch.height && x >= 0 && x < patch.width;
          row[j] = inside ? load_first(patch.corner + offset, lanes) : Vf{};
        }
      }
      transform_line(row, line);
      for (int j = 0; j < kSide; ++j) lines[j][i] = line[j];
    }
    for (int j = 0; j < kSide; ++j) {
      Vf column[kSide];
      transform_line(lines[j], column);
      for (int i = 0; i < kSide; ++i) store(values + (i * kSide + j) * plane + c, column[i]);
    }
  }
}

// values (points, block, padded channels): the transformed input of the tiles [first, first + count).
template <int kSide>
static void transform_input(const Conv3x3Params& p, float* values, int64_t first, int64_t count) {
  const int64_t stride = p.padded_channels(), plane = p.block() * stride;
  for (int64_t t = 0; t < count; ++t) {
    const Patch patch = patch_under<kSide>(p, tile_at(p, first + t));
    const bool inside = patch.row >= 0 && patch.row + kSide <= patch.height && patch.column >= 0 &&
                        patch.column + kSide <= patch.width;
    if (inside && p.channels % kWidth == 0) {
      transform_patch<kSide, true>(patch, p.channels, values + t * stride, plane);
    } else {
      transform_patch<kSide, false>(patch, p.channels, values + t * stride, plane);
    }
  }
}

// products (rows, ...) = values (rows, depth) * weight (panels, depth, kPanel), summed over channels kChunk at a time:
// rounding grows with the length of a sum.
template <int kR, int kP>
static void multiply_chunk(const float* values, int64_t value_stride, const float* weight, int64_t depth, int64_t begin,
                           int64_t end, float* products, int64_t product_stride) {
  Vf sum[kR][kP * kVectors];  // every loop over it is unrolled, so that it stays in registers
#pragma GCC unroll 6
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < kP * kVectors; ++j) sum[r][j] = Vf{};
  }
  for (int64_t k = begin; k < end; ++k) {
    Vf w[kP * kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kP * kVectors; ++j) {
      w[j] = load(weight + (j / kVectors * depth + k) * kPanel + j % kVectors * kWidth);
    }
#pragma GCC unroll 6
    for (int r = 0; r < kR; ++r) {
      const Vf value = broadcast(values[r * value_stride + k]);
#pragma GCC unroll 4
      for (int j = 0; j < kP * kVectors; ++j) sum[r][j] = fma(value, w[j], sum[r][j]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < kP * kVectors; ++j) {
      float* target = products + r * product_stride + j * kWidth;
      store(target, begin ? sum[r][j] + load(target) : sum[r][j]);
    }
  }
}

template <int kR, int kP>
static void multiply(const float* values, int64_t value_stride, const float* weight, int64_t depth, float* products,
                     int64_t product_stride) {
  for (int64_t k = 0; k < depth; k += kChunk) {
    const int64_t end = k + kChunk < depth ? k + kChunk : depth;
    multiply_chunk<kR, kP>(values, value_stride, weight, depth, k, end, products, product_stride);
  }
}

// The rows that are left, kR at most.
template <int kR, int kP>
static void multiply_last(const float* values, int64_t value_stride, const float* weight, int64_t depth,
                          float* products, int64_t product_stride, int64_t rows) {
  if constexpr (kR > 0) {
    if (rows == kR) return multiply<kR, kP>(values, value_stride, weight, depth, products, product_stride);
    multiply_last<kR - 1, kP>(values, value_stride, weight, depth, products, product_stride, rows);
  }
}

template <int kP>
static void multiply_rows(const float* values, int64_t value_stride, const float* weight, int64_t depth,
                          float* products, int64_t product_stride, int64_t rows) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    multiply<kRows, kP>(values + r * value_stride, value_stride, weight, depth, products + r * product_stride,
                        product_stride);
  }
  multiply_last<kRows - 1, kP>(values + r * value_stride, value_stride, weight, depth, products + r * product_stride,
                               product_stride, rows - r);
}

static void multiply_points(const Conv3x3Params& p, const float* values, float* products, int64_t count) {
  const int64_t value_stride = p.padded_channels(), product_stride = p.padded_out_channels();
  const int64_t panels = p.out_panels(), panel_size = p.channels * kPanel;
  for (int64_t point = 0; point < p.points(); ++point) {
    const float* v = values + point * p.block() * value_stride;
    const float* w = p.weight + point * panels * panel_size;
    float* m = products + point * p.block() * product_stride;
    int64_t panel = 0;
    for (; panel + kPanels <= panels; panel += kPanels) {
      multiply_rows<kPanels>(v, value_stride, w + panel * panel_size, p.channels, m + panel * kPanel, product_stride,
                             count);
    }
    for (; panel < panels; ++panel) {
      multiply_rows<1>(v, value_stride, w + panel * panel_size, p.channels, m + panel * kPanel, product_stride, count);
    }
  }
}

// One line of the output transform.
static inline void gather_line(const Vf (&m)[6], Vf (&out)[4]) {
  const Vf sum_a = m[1] + m[2], difference_a = m[1] - m[2], sum_b = m[3] + m[4], difference_b = m[3] - m[4];
  out[0] = m[0] + sum_a + sum_b;
  out[1] = fma(difference_a, broadcast(kA), difference_b * kB);
  out[2] = fma(sum_a, broadcast(kA2), sum_b * kB2);
  out[3] = fma(difference_a, broadcast(kA2 * kA), fma(difference_b, broadcast(kB2 * kB), m[5]));
}

static inline void gather_line(const Vf (&m)[4], Vf (&out)[2]) {
  out[0] = m[0] + m[1] + m[2];
  out[1] = m[1] - m[2] - m[3];
}

static inline void gather_line(const Vf (&m)[3], Vf (&out)[2]) {
  out[0] = m[0] + m[1];
  out[1] = m[1] - m[2];
}

static inline void write(const Conv3x3Params& p, int64_t pixel, int64_t o, int lanes, Vf value) {
  const Vf low = min(Vf{}, value);
  value = max(Vf{}, value) + (p.leak == 0.0f ? Vf{} : low * p.leak);
  const int64_t place = pixel * p.out_channels + o;
  if (lanes == kWidth) {
    store(p.y + place, p.residual ? value + load(p.residual + place) : value);
  } else {
    store_first(p.y + place, p.residual ? value + load_first(p.residual + place, lanes) : value, lanes);
  }
}

template <int kSide, int kTile>
static void transform_output(const Conv3x3Params& p, const float* products, int64_t first, int64_t count) {
  const int64_t stride = p.padded_out_channels(), plane = p.block() * stride;
  for (int64_t t = 0; t < count; ++t) {
    const Tile tile = tile_at(p, first + t);
    for (int64_t o = 0; o < p.out_channels; o += kWidth) {
      const int lanes = p.out_channels - o < kWidth ? int(p.out_channels - o) : kWidth;
      Vf half[kTile][kSide];  // the columns gathered
      for (int j = 0; j < kSide; ++j) {
        Vf column[kSide], gathered[kTile];
        for (int i = 0; i < kSide; ++i) column[i] = load(products + (i * kSide + j) * plane + t * stride + o);
        gather_line(column, gathered);
        for (int i = 0; i < kTile; ++i) half[i][j] = gathered[i];
      }
      const Vf bias = load_first(p.bias + o, lanes);
      for (int i = 0; i < kTile; ++i) {
        Vf result[kTile];
        gather_line(half[i], result);
        for (int j = 0; j < kTile; ++j) {
          const int64_t y = tile.row * kTile + i, x = tile.column * kTile + j;
          if (y >= p.height || x >= p.width) continue;
          write(p, (tile.image * p.height + y) * p.width + x, o, lanes, result[j] + bias);
        }
      }
    }
  }
}

template <int kSide, int kTile>
static void convolve(const Conv3x3Params& params, float* scratch, int64_t begin, int64_t end) {
  float* values = scratch;
  float* products = scratch + params.points() * params.block() * params.padded_channels();
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * params.block(), left = params.tiles() - first;
    const int64_t count = left < params.block() ? left : params.block();
    if (count <= 0) break;
    transform_input<kSide>(params, values, first, count);
    multiply_points(params, values, products, count);
    transform_output<kSide, kTile>(params, products, first, count);
  }
}

void conv3x3_forward(const Conv3x3Params& params, float* scratch, int64_t begin, int64_t end) {
  if (params.side == 6) {
    convolve<6, 4>(params, scratch, begin, end);
  } else if (params.side == 4) {
    convolve<4, 2>(params, scratch, begin, end);
  } else {
    convolve<3, 2>(params, scratch, begin, end);
  }
}

}  // namespace cbtalk::CBTALK_ISA
