// Matrix products of rows and packed panels. Included once by each kernel file, after simd.h, in its namespace.
//
// A panel holds 16 columns: float [depth][16], or bfloat16 [depth / 2][16][2], so that one vector load takes a step of
// the depth for as many columns as there are lanes. A tile keeps its sums in registers: CAIT_TILE_ROWS rows by
// CAIT_TILE_VECTORS vectors.

constexpr int kTileRows = CAIT_TILE_ROWS;
constexpr int kTileVectors = CAIT_TILE_VECTORS;
constexpr int kTileColumns = kTileVectors * kLanes;
constexpr int kTilePanels = kTileColumns / kPanel;
static_assert(kTilePanels * kPanel == kTileColumns && kTileRows % 2 == 0, "tiles are whole panels and pairs of rows");

inline long tiles_of(long rows) { return (rows + kTileRows - 1) / kTileRows; }

template <class T>
struct Factors {
  const T* a;  // [rows, depth], `a_stride` apart
  long a_stride;
  const T* b;       // panels
  long panel_size;  // elements of a panel, which may be deeper than
  int depth;        // the product
  const float* bias;  // [columns], or null
};

// One tile: R rows from `row` on, V vectors of columns from panel `panel` on, to `out`.
template <int R, int V, class T>
void tile(const Factors<T>& f, int row, int panel, float* out, long out_stride) {
  constexpr int kStep = 4 / sizeof(T);  // depth of one word
  const T* a = f.a + row * f.a_stride;
  const T* columns[V];
  Floats sums[R][V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const int column = v * kLanes;
    const T* base = f.b + (panel + column / kPanel) * f.panel_size;
    columns[v] = base + column % kPanel * kStep;
    const Floats start = f.bias ? load(f.bias + panel * kPanel + column) : Floats{};
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r][v] = start;
  }
  for (int k = 0; k < f.depth; k += kStep) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto factor = word(a + r * f.a_stride + k);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = dot(sums[r][v], factor, columns[v] + static_cast<long>(k) * kPanel);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(out + r * out_stride + v * kLanes, sums[r][v]);
  }
}

template <int V, class T, int... R>
void tile_of(int rows, const Factors<T>& f, int row, int panel, float* out, long stride,
             std::integer_sequence<int, R...>) {
  typedef void (*Tile)(const Factors<T>&, int, int, float*, long);
  static constexpr Tile kTiles[] = {tile<R + 1, V, T>...};
  kTiles[rows - 1](f, row, panel, out, stride);
}

// Rows [row, row + rows), at most kTileRows, and panels [panel, panel + panels), at most kTilePanels, to `out`.
template <class T>
inline void any_tile(const Factors<T>& f, int row, int rows, int panel, int panels, float* out, long stride) {
  constexpr auto sizes = std::make_integer_sequence<int, kTileRows>();
  if (panels == kTilePanels) {
    tile_of<kTileVectors>(rows, f, row, panel, out, stride, sizes);
  } else {  // half a tile, where a tile has two panels
    tile_of<kPanel / kLanes>(rows, f, row, panel, out, stride, sizes);
  }
}

// All rows and panels; `finish(row, rows, panel, values)` is given each panel of each tile, `kTileColumns` apart.
template <class T, class Finish>
inline void product(const Factors<T>& f, int rows, int panels, Finish finish) {
  alignas(64) float values[kTileRows * kTileColumns];
  for (int panel = 0; panel < panels; panel += kTilePanels) {
    const int wide = std::min(kTilePanels, panels - panel);
    for (int row = 0; row < rows; row += kTileRows) {
      const int high = std::min(kTileRows, rows - row);
      any_tile(f, row, high, panel, wide, values, kTileColumns);
      for (int p = 0; p < wide; ++p) finish(row, high, panel + p, values + p * kPanel);
    }
  }
}
