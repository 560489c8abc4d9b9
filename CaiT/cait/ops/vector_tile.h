// Tiles of a product by vector instructions.

// One tile: R rows from `row` on, V vectors of columns from panel `panel` on, to `out`.
template <int R, int V, class T>
void tile(const Factors<T, T>& f, int row, int panel, float* out, long out_stride) {
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
void tile_of(int rows, const Factors<T, T>& f, int row, int panel, float* out, long stride,
             std::integer_sequence<int, R...>) {
  typedef void (*Tile)(const Factors<T, T>&, int, int, float*, long);
  static constexpr Tile kTiles[] = {tile<R + 1, V, T>...};
  kTiles[rows - 1](f, row, panel, out, stride);
}

// Rows [row, row + rows), at most kTileRows, and panels [panel, panel + panels), at most kTilePanels, to `out`.
template <class T>
inline void any_tile(const Factors<T, T>& f, int row, int rows, int panel, int panels, float* out, long stride) {
  constexpr auto sizes = std::make_integer_sequence<int, kTileRows<T>>();
  if (panels == kTilePanels) {
    tile_of<kTileVectors>(rows, f, row, panel, out, stride, sizes);
  } else {  // half a tile, where a tile has two panels
    tile_of<kPanel / kLanes>(rows, f, row, panel, out, stride, sizes);
  }
}
