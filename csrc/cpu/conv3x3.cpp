#include "cbtalk/conv3x3.h"

#include "simd.h"

namespace cbtalk::CBTALK_ISA {

constexpr int kPanel = Conv3x3Params::kPanel;
constexpr int kVectors = kPanel / kWidth;
#if defined(__AVX512F__)
constexpr int kPanels = 4, kRows = 6;  // 24 sums in 32 registers
#elif defined(__AVX2__)
constexpr int kPanels = 1, kRows = 6;  // 12 sums in 16 registers
#else
constexpr int kPanels = 1, kRows = 3;
#endif

struct Tile {
  int64_t picture, row, column;
};

static inline Tile tile_at(const Conv3x3Params& p, int64_t index) {
  const int64_t columns = p.tile_columns(), rows = p.tile_rows();
  return {index / (rows * columns), index / columns % rows, index % columns};
}

// The pixels (4 x 4, or 3 x 3 of the half-size picture) under one tile; null outside the picture.
template <int kSide>
static inline void locate(const Conv3x3Params& p, Tile tile, const float* (&pixels)[kSide][kSide]) {
  const int64_t step = kSide == 4 ? 2 : 1;
  const int64_t height = kSide == 4 ? p.height : p.height / 2, width = kSide == 4 ? p.width : p.width / 2;
  for (int i = 0; i < kSide; ++i) {
    for (int j = 0; j < kSide; ++j) {
      const int64_t y = tile.row * step - 1 + i, x = tile.column * step - 1 + j;
      const bool inside = y >= 0 && y < height && x >= 0 && x < width;
      pixels[i][j] = inside ? p.x + ((tile.picture * height + y) * width + x) * p.channels : nullptr;
    }
  }
}

// One line of the input transform, in place.
static inline void transform_line(Vf& a, Vf& b, Vf& c, Vf& d) {
  const Vf first = a - c, second = b + c, third = c - b, fourth = b - d;
  a = first, b = second, c = third, d = fourth;
}

// The same for the line a, b, b, c of an enlarged picture; the third entry is zero and left out.
static inline void transform_line(Vf& a, Vf& b, Vf& c) {
  const Vf first = a - b, second = b + b, third = b - c;
  a = first, b = second, c = third;
}

template <int kSide>
static inline void transform_square(Vf (&d)[kSide][kSide]) {
  for (int j = 0; j < kSide; ++j) {
    if constexpr (kSide == 4) transform_line(d[0][j], d[1][j], d[2][j], d[3][j]);
    if constexpr (kSide == 3) transform_line(d[0][j], d[1][j], d[2][j]);
  }
  for (int i = 0; i < kSide; ++i) {
    if constexpr (kSide == 4) transform_line(d[i][0], d[i][1], d[i][2], d[i][3]);
    if constexpr (kSide == 3) transform_line(d[i][0], d[i][1], d[i][2]);
  }
}

// values (points, block, padded channels): the transformed input of the tiles [first, first + count).
template <int kSide>
static void transform_input(const Conv3x3Params& p, float* values, int64_t first, int64_t count) {
  const int64_t stride = p.padded_channels(), plane = p.block() * stride;
  for (int64_t t = 0; t < count; ++t) {
    const float* pixels[kSide][kSide];
    locate(p, tile_at(p, first + t), pixels);
    for (int64_t c = 0; c < p.channels; c += kWidth) {
      const int lanes = p.channels - c < kWidth ? int(p.channels - c) : kWidth;
      Vf d[kSide][kSide];
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) {
          const float* pixel = pixels[i][j];
          d[i][j] = !pixel ? Vf{} : lanes == kWidth ? load(pixel + c) : load_first(pixel + c, lanes);
        }
      }
      transform_square(d);
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) store(values + (i * kSide + j) * plane + t * stride + c, d[i][j]);
      }
    }
  }
}

// products (rows, ...) = values (rows, depth) * weight (panels, depth, kPanel).
template <int kR, int kP>
static void multiply(const float* values, int64_t value_stride, const float* weight, int64_t depth, float* products,
                     int64_t product_stride) {
  Vf sum[kR][kP * kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
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
  for (int r = 0; r < kR; ++r) {
    for (int j = 0; j < kP * kVectors; ++j) store(products + r * product_stride + j * kWidth, sum[r][j]);
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
  for (; r < rows; ++r) {
    multiply<1, kP>(values + r * value_stride, value_stride, weight, depth, products + r * product_stride,
                    product_stride);
  }
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

// One line of the output transform: two results.
static inline void gather_line(const Vf (&m)[4], Vf& first, Vf& second) {
  first = m[0] + m[1] + m[2];
  second = m[1] - m[2] - m[3];
}

static inline void gather_line(const Vf (&m)[3], Vf& first, Vf& second) {
  first = m[0] + m[1];
  second = m[1] - m[2];
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

template <int kSide>
static void transform_output(const Conv3x3Params& p, const float* products, int64_t first, int64_t count) {
  const int64_t stride = p.padded_out_channels(), plane = p.block() * stride;
  for (int64_t t = 0; t < count; ++t) {
    const Tile tile = tile_at(p, first + t);
    for (int64_t o = 0; o < p.out_channels; o += kWidth) {
      const int lanes = p.out_channels - o < kWidth ? int(p.out_channels - o) : kWidth;
      Vf half[2][kSide];  // the columns gathered
      for (int j = 0; j < kSide; ++j) {
        Vf column[kSide];
        for (int i = 0; i < kSide; ++i) column[i] = load(products + (i * kSide + j) * plane + t * stride + o);
        gather_line(column, half[0][j], half[1][j]);
      }
      const Vf bias = load_first(p.bias + o, lanes);
      for (int i = 0; i < 2; ++i) {
        Vf result[2];
        gather_line(half[i], result[0], result[1]);
        for (int j = 0; j < 2; ++j) {
          const int64_t y = tile.row * 2 + i, x = tile.column * 2 + j;
          if (y >= p.height || x >= p.width) continue;
          write(p, (tile.picture * p.height + y) * p.width + x, o, lanes, result[j] + bias);
        }
      }
    }
  }
}

void conv3x3_forward(const Conv3x3Params& params, float* scratch, int64_t begin, int64_t end) {
  float* values = scratch;
  float* products = scratch + params.points() * params.block() * params.padded_channels();
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * params.block(), left = params.tiles() - first;
    const int64_t count = left < params.block() ? left : params.block();
    if (params.upsample) {
      transform_input<3>(params, values, first, count);
      multiply_points(params, values, products, count);
      transform_output<3>(params, products, first, count);
    } else {
      transform_input<4>(params, values, first, count);
      multiply_points(params, values, products, count);
      transform_output<4>(params, products, first, count);
    }
  }
}

}  // namespace cbtalk::CBTALK_ISA
