// The loops that the panel kernels of every instruction set share. Included once by each panel_<isa>.cc, into
// its unnamed namespace, so that no other file can meet code built for the wrong processor.
//
// A kernel K gives, for 16 columns at a time:
//   Vec, Operand       accumulators; weights ready to be multiplied
//   Raw load(bytes)    one 64-byte row of a panel
//   step<S>(raw)       its S-th step of k: an Operand                     (kSteps of them)
//   load_operand, store_operand   64 bytes of an operand set aside
//   zero, load_sum, store_sum, multiply_add(sum, unit, operand), scale_add(y, sum, scale)
//   kUnitK             k of one step: 1 (float32) or 2 (bf16 pairs)
//   kScaled            FP8: sums are scaled after each 128 of k
//   kPanelByPanel      a panel's row is used up before the next one's is loaded: more broadcasts, but fewer
//                      registers; else the panels share each broadcast
//   kMaxRows, kMaxPanels   the register tile for many rows; kStreamPanels[rows] the one for few
//   kFetchAhead        how many bytes of weights are on their way ahead of use; 0 leaves it to the processor
//   Exact              FP8, where load and step are quick but not exact for tiny codes (layout.h): the same
//                      for rows that hold some
//   kUnpacks           with many rows, weights are unpacked once and set aside: from kUnpackBlocks blocks of
//                      rows on; with fewer, or without kUnpacks, each block unpacks them in registers
//   kSliceK            how much of k all rows go through at once, or kAllK; kAsideK where weights are set
//   aside
//
// Every output is one chain of additions in the order of k, whatever the tile: in slices that are set aside
// in y (exactly) or, for FP8, in sums of 128 that are scaled and added to y in order. So its bits do not
// depend on the tile, the other rows or the threads.

constexpr int64_t kAllK = INT64_MAX;

#if defined(FATHOM_UNROLL)
// The test leaves the loops alone.
#elif defined(__clang__)
#define FATHOM_UNROLL _Pragma("unroll")
#else
#define FATHOM_UNROLL _Pragma("GCC unroll 16")
#endif

struct Tile {
  const float* a;     // the first line of 16 units of the first row; the other rows' follow
  int64_t line_step;  // floats to the rows' next lines
  int64_t lines;      // to go through
  const uint8_t* w;
  int64_t w_stride;  // bytes from panel to panel
  float* y;
  int64_t y_stride;
  const float* scales;
  const float* tiny;  // the words that tell of tiny codes, from these 128 k on
  int64_t record;     // words from panel to panel, of both
  bool begins;        // the chain begins here; else it goes on from y
  // Memory that will be needed next, fetched in passing: so many cache lines in each line of activations.
  const uint8_t* fetch;
  int64_t fetch_lines;
};

// Do rows with tiny codes go another way?
template <class Source>
constexpr bool kTellsTiny = requires { typename Source::Exact; };
inline uint32_t word_at(const float* p) {
  uint32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return word;
}

// Weights unpacked by K as they are read.
template <class K>
struct Streamed : K {};
// Operands that were set aside.
template <class K>
struct SetAside {
  static constexpr int kSteps = 1;
  using Raw = typename K::Operand;
  static Raw load(const uint8_t* p) { return K::load_operand(p); }
  template <int S>
  static typename K::Operand step(const Raw& raw) {
    return raw;
  }
};

// Steps S and on of one row of all panels.
template <class K, class Source, int kRows, int kPanels, int S, class Sums>
[[gnu::always_inline]] inline void add_steps(Sums& sum, const typename Source::Raw (&raw)[kPanels],
                                             const float* a) {
  typename K::Operand operand[kPanels];
  FATHOM_UNROLL for (int p = 0; p < kPanels; ++p) operand[p] = Source::template step<S>(raw[p]);
  FATHOM_UNROLL for (int r = 0; r < kRows; ++r) {
    const auto unit = K::broadcast(a + r * 16 + S);
    FATHOM_UNROLL for (int p = 0; p < kPanels; ++p) {
      sum[r][p] = K::multiply_add(sum[r][p], unit, operand[p]);
    }
  }
  if constexpr (S + 1 < Source::kSteps) {
    add_steps<K, Source, kRows, kPanels, S + 1>(sum, raw, a);
  }
}
// One row of all panels.
template <class K, class Source, int kRows, int kPanels, class Sums>
[[gnu::always_inline]] inline void add_row(Sums& sum, const uint8_t* w, int64_t w_stride, const float* a) {
  typename Source::Raw raw[kPanels];
  FATHOM_UNROLL for (int p = 0; p < kPanels; ++p) raw[p] = Source::load(w + p * w_stride);
  add_steps<K, Source, kRows, kPanels, 0>(sum, raw, a);
}
// Steps S and on of one row of panel p.
template <class K, class Source, int kRows, int S, class Sums>
[[gnu::always_inline]] inline void add_panel_steps(Sums& sum, int p, const typename Source::Raw& raw,
                                                   const float* a) {
  const typename K::Operand operand = Source::template step<S>(raw);
  FATHOM_UNROLL for (int r = 0; r < kRows; ++r) {
    sum[r][p] = K::multiply_add(sum[r][p], K::broadcast(a + r * 16 + S), operand);
  }
  if constexpr (S + 1 < Source::kSteps) add_panel_steps<K, Source, kRows, S + 1>(sum, p, raw, a);
}

// k of one 64-byte row of a panel, and of one line of activations.
template <class K>
constexpr int64_t kRowK = K::kSteps * K::kUnitK;
template <class K>
constexpr int64_t kLineK = 16 * K::kUnitK;

// FP8: does a tile go through several parts of 128 k? (What GCC makes of that loop with AVX2's registers is
// up to twice as slow.)
template <class K>
constexpr bool kScalesInTile = K::kScaled && K::kSliceK == kAllK;

// `panel_step`: columns from panel to panel. kAhead: bytes ahead of each panel's stream to fetch, where the
// weights come from memory.
template <class K, class Source, int kRows, int kPanels, int64_t kAhead = 0>
void multiply_tile(const Tile& tile, int64_t panel_step = 16) {
  const float* line = tile.a;
  const uint8_t* w = tile.w;
  const int64_t w_stride = tile.w_stride;
  const int64_t line_step = tile.line_step;
  const uint8_t* fetch = tile.fetch;
  const float* scales = tile.scales;
  const float* tiny_words = tile.tiny;
  bool begins = tile.begins;
  int64_t rest = tile.lines;
  do {
    typename K::Vec sum[kRows][kPanels];
    FATHOM_UNROLL for (int r = 0; r < kRows; ++r) {
      FATHOM_UNROLL for (int p = 0; p < kPanels; ++p) {
        sum[r][p] =
            K::kScaled || begins ? K::zero() : K::load_sum(tile.y + r * tile.y_stride + panel_step * p);
      }
    }
    int64_t left = kScalesInTile<K> && rest > 128 / kLineK<K> ? 128 / kLineK<K> : rest;
    rest -= left;
    [[maybe_unused]] uint32_t tiny = 0;
    if constexpr (kTellsTiny<Source>) {
      FATHOM_UNROLL for (int p = 0; p < kPanels; ++p) tiny |= word_at(tiny_words + tile.record * p);
    }
    for (; left > 0; --left) {
      for (int64_t i = 0; i < tile.fetch_lines; ++i, fetch += 64) __builtin_prefetch(fetch);
      for (int i = 0; i < 16; i += Source::kSteps) {
        if constexpr (K::kPanelByPanel) {
          FATHOM_UNROLL for (int p = 0; p < kPanels; ++p) {
            if constexpr (kAhead > 0) __builtin_prefetch(w + p * w_stride + kAhead);
            const typename Source::Raw raw = Source::load(w + p * w_stride);
            add_panel_steps<K, Source, kRows, 0>(sum, p, raw, line + i);
          }
        } else {
          FATHOM_UNROLL for (int p = 0; p < kPanels; ++p) {
            if constexpr (kAhead > 0) __builtin_prefetch(w + p * w_stride + kAhead);
          }
          if constexpr (kTellsTiny<Source>) {
            if ((tiny & 1U) != 0) [[unlikely]] {
              add_row<K, typename Source::Exact, kRows, kPanels>(sum, w, w_stride, line + i);
            } else {
              add_row<K, Source, kRows, kPanels>(sum, w, w_stride, line + i);
            }
            tiny >>= 1;
          } else {
            add_row<K, Source, kRows, kPanels>(sum, w, w_stride, line + i);
          }
        }
        w += 64;
      }
      line += line_step;
    }
    FATHOM_UNROLL for (int r = 0; r < kRows; ++r) {
      FATHOM_UNROLL for (int p = 0; p < kPanels; ++p) {
        float* y = tile.y + r * tile.y_stride + panel_step * p;
        if constexpr (K::kScaled) {
          sum[r][p] = K::scale_add(begins ? K::zero() : K::load_sum(y), sum[r][p], scales + tile.record * p);
        }
        K::store_sum(y, sum[r][p]);
      }
    }
    if constexpr (K::kScaled) {
      scales += 16;
      ++tiny_words;
    }
    begins = false;
  } while (kScalesInTile<K> && rest > 0);
}

template <class K, class Source, int kRows, int kPanels>
void multiply_rows(int64_t rows, const Tile& tile) {
  if (rows == kRows) {
    multiply_tile<K, Source, kRows, kPanels>(tile);
  } else if constexpr (kRows > 1) {
    multiply_rows<K, Source, kRows - 1, kPanels>(rows, tile);
  }
}

// Block `block` of rows, k in [k, k + slice).
template <class K>
Tile tile_at(const PanelProduct& p, int64_t block, int64_t panel, int64_t k, int64_t slice) {
  Tile tile{};
  tile.a = p.a + p.block_rows * (block * p.units + k / K::kUnitK);
  tile.line_step = 16 * p.block_rows;
  tile.lines = slice / kLineK<K>;
  tile.w = p.w + panel * p.panel_bytes + k / kRowK<K> * 64;
  tile.w_stride = p.panel_bytes;
  tile.y = p.y + block * p.block_rows * p.y_stride + 16 * panel;
  tile.y_stride = p.y_stride;
  if (K::kScaled) {
    const float* record = p.scales + panel * p.record;
    tile.scales = record + k / 128 * 16;
    tile.tiny = record + p.scale_blocks * 16 + k / 128;
    tile.record = p.record;
  }
  tile.begins = k == 0 && !p.accumulate;
  return tile;
}

// Few rows: the weights stream from memory through registers once. Of kWide panels at once, each is the first
// of a run that lies in memory in one piece: what fetches ahead of a stream need not find its way anew for
// each panel.
template <class K, int kRows>
void stream_rows(const PanelProduct& p) {
  constexpr int kWide = K::kStreamPanels[kRows];
  const int64_t most = K::kScaled && !kScalesInTile<K> ? 128 : p.k;
  const int64_t run = p.panels / kWide;
  for (int64_t panel = 0; panel < run; ++panel) {
    for (int64_t k = 0; k < p.k; k += most) {
      Tile tile = tile_at<K>(p, 0, panel, k, k + most < p.k ? most : p.k - k);
      tile.w_stride = run * p.panel_bytes;
      tile.record = run * p.record;
      if constexpr (K::kScaled) {
        // Nothing else tells the processor where these come from.
        for (int i = 0; i < kWide; ++i) {
          __builtin_prefetch(tile.tiny + p.record + i * tile.record);
          __builtin_prefetch(tile.scales + p.record + i * tile.record);
        }
      }
      multiply_tile<K, Streamed<K>, kRows, kWide, K::kFetchAhead / kWide>(tile, 16 * run);
    }
  }
  for (int64_t panel = run * kWide; panel < p.panels; ++panel) {
    for (int64_t k = 0; k < p.k; k += most) {
      const Tile tile = tile_at<K>(p, 0, panel, k, k + most < p.k ? most : p.k - k);
      multiply_tile<K, Streamed<K>, kRows, 1, K::kFetchAhead>(tile);
    }
  }
}

// What unpacks every code exactly.
template <class K>
struct ExactOf {
  using Source = K;
};
template <class K>
  requires(kTellsTiny<K>)
struct ExactOf<K> {
  using Source = typename K::Exact;
};
template <class K, class Source, int S>
[[gnu::always_inline]] inline void set_steps_aside(const typename Source::Raw& raw, uint8_t* out) {
  K::store_operand(out + 64 * S, Source::template step<S>(raw));
  if constexpr (S + 1 < K::kSteps) set_steps_aside<K, Source, S + 1>(raw, out);
}
// `ahead`: how far from here the weights are that will be unpacked next; 0 when the tiles fetch them.
template <class K>
void set_aside(const uint8_t* w, int64_t w_rows, int64_t ahead, uint8_t* out) {
  for (int64_t i = 0; i < w_rows; ++i) {
    if (K::kFetchAhead == 0) __builtin_prefetch(w + 64 * i + ahead);
    using Source = typename ExactOf<K>::Source;
    set_steps_aside<K, Source, 0>(Source::load(w + 64 * i), out + 64 * K::kSteps * i);
  }
}

// Fetches the first lines of a block of activations and its outputs while the one before is multiplied.
inline void fetch_block(const Tile& tile, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) __builtin_prefetch(tile.y + r * tile.y_stride);
  for (int64_t line = 0; line < 4 * rows; ++line) __builtin_prefetch(tile.a + 16 * line);
}

// Are the weights set aside for so many blocks of rows?
template <class K>
constexpr bool sets_aside(int64_t blocks) {
  if constexpr (K::kUnpacks) return blocks >= K::kUnpackBlocks;
  return false;
}
template <class K>
constexpr int64_t slice_of(int64_t blocks) {
  if constexpr (K::kUnpacks) {
    if (blocks >= K::kUnpackBlocks) return K::kAsideK;
  }
  return K::kSliceK;
}

// Blocks [first, end) of rows times kPanels panels over one slice of k. `ahead`: how far from here the
// weights are that come next.
template <class K, int kPanels>
void multiply_slice(const PanelProduct& p, int64_t first, int64_t end, int64_t panel, int64_t k,
                    int64_t slice, int64_t ahead) {
  const uint8_t* w = p.w + panel * p.panel_bytes + k / kRowK<K> * 64;
  int64_t w_stride = p.panel_bytes;
  const int64_t w_rows = slice / kRowK<K>;
  // Spread evenly over the tiles: in a burst, nothing else would get on.
  const int64_t lines = slice / kLineK<K>;
  const uint8_t* fetch = w + ahead;
  int64_t to_fetch = kPanels == 1 && K::kFetchAhead > 0 ? w_rows : 0;
  const int64_t fetch_lines = (to_fetch + lines * (end - first) - 1) / (lines * (end - first));
  const bool unpack = sets_aside<K>(end - first);
  if constexpr (K::kUnpacks) {
    if (unpack) {
      static_assert(K::kMaxPanels * K::kAsideK / kRowK<K> * 64 * K::kSteps <= kPanelScratchBytes);
      auto* aside = reinterpret_cast<uint8_t*>(p.scratch);
      const int64_t bytes = w_rows * 64 * K::kSteps;
      for (int i = 0; i < kPanels; ++i) set_aside<K>(w + i * w_stride, w_rows, ahead, aside + i * bytes);
      w = aside;
      w_stride = bytes;
    }
  }
  for (int64_t block = first; block < end; ++block) {
    Tile tile = tile_at<K>(p, block, panel, k, slice);
    tile.w = w;
    tile.w_stride = w_stride;
    if (to_fetch > 0) {
      tile.fetch = fetch;
      tile.fetch_lines = fetch_lines;
      fetch += 64 * fetch_lines * lines;
      to_fetch -= fetch_lines * lines;
    }
    if (block + 1 < end) fetch_block(tile_at<K>(p, block + 1, panel, k, slice), p.block_rows);
    const int64_t left = p.rows - block * p.block_rows;
    const int64_t rows = left < p.block_rows ? left : p.block_rows;
    if constexpr (K::kUnpacks) {
      if (unpack) {
        multiply_rows<K, SetAside<K>, K::kMaxRows, kPanels>(rows, tile);
        continue;
      }
    }
    multiply_rows<K, Streamed<K>, K::kMaxRows, kPanels>(rows, tile);
  }
}

template <class K>
void multiply_blocks(const PanelProduct& p, int64_t first, int64_t end, int64_t panel_begin,
                     int64_t panel_end) {
  const int64_t most = slice_of<K>(end - first);
  for (int64_t k = 0, slice = 0; k < p.k; k += slice) {
    slice = p.k - k < most ? p.k - k : most;
    // One group of panels goes on with its next slice, of several the next one comes first.
    const bool one = panel_end - panel_begin <= K::kMaxPanels;
    const int64_t ahead = one ? slice / kRowK<K> * 64 : K::kMaxPanels * p.panel_bytes;
    int64_t panel = panel_begin;
    for (; panel + K::kMaxPanels <= panel_end; panel += K::kMaxPanels) {
      multiply_slice<K, K::kMaxPanels>(p, first, end, panel, k, slice, ahead);
    }
    for (; panel < panel_end; ++panel) multiply_slice<K, 1>(p, first, end, panel, k, slice, ahead);
  }
}

// All columns exist.
template <class K>
void multiply_whole(const PanelProduct& p) {
  switch (p.rows) {
    case 1:
      return stream_rows<K, 1>(p);
    case 2:
      return stream_rows<K, 2>(p);
    case 3:
      return stream_rows<K, 3>(p);
    case 4:
      return stream_rows<K, 4>(p);
    default:
      break;
  }
  // Few rows fit the caches whatever the order, so a group of panels is read through once, front to back.
  // With many, a slice of their k has to stay in L2 while the panels pass.
  constexpr int64_t kFew = 32;
  constexpr int64_t kMany = 192;
  const int64_t blocks = (p.rows + p.block_rows - 1) / p.block_rows;
  if (p.rows <= kFew) {
    for (int64_t panel = 0; panel < p.panels; panel += K::kMaxPanels) {
      const int64_t end = panel + K::kMaxPanels < p.panels ? panel + K::kMaxPanels : p.panels;
      multiply_blocks<K>(p, 0, blocks, panel, end);
    }
    return;
  }
  const int64_t parts = (p.rows + kMany - 1) / kMany;
  for (int64_t i = 0; i < parts; ++i) {
    multiply_blocks<K>(p, blocks * i / parts, blocks * (i + 1) / parts, 0, p.panels);
  }
}

// A panel that is cut by the end of n goes through a copy of its outputs.
template <class K>
void multiply_cut(const PanelProduct& whole) {
  constexpr int64_t kMost = 32;
  alignas(64) float sums[kMost * 16];
  const int64_t columns = whole.columns - 16 * (whole.panels - 1);
  const int64_t step = kMost / whole.block_rows * whole.block_rows;
  for (int64_t row = 0; row < whole.rows; row += step) {
    PanelProduct p = whole;
    p.a += row * p.units;
    p.rows = row + step < whole.rows ? step : whole.rows - row;
    p.w += (whole.panels - 1) * p.panel_bytes;
    if (K::kScaled) p.scales += (whole.panels - 1) * p.record;
    p.panels = 1;
    p.y = sums;
    p.y_stride = 16;
    float* y = whole.y + row * whole.y_stride + 16 * (whole.panels - 1);
    for (int64_t r = 0; r < p.rows; ++r) {
      for (int64_t c = 0; c < 16; ++c) {
        sums[16 * r + c] = p.accumulate && c < columns ? y[r * whole.y_stride + c] : 0.0F;
      }
    }
    multiply_whole<K>(p);
    for (int64_t r = 0; r < p.rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) y[r * whole.y_stride + c] = sums[16 * r + c];
    }
  }
}

template <class K>
void multiply_panels(const PanelProduct& p) {
  PanelProduct whole = p;
  whole.panels = p.columns / 16;
  if (whole.panels > 0) multiply_whole<K>(whole);
  if (whole.panels < p.panels) multiply_cut<K>(p);
}
