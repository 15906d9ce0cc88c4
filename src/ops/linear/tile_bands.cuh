// The order of a dense product's tiles where both operands are more than the L2 cache holds: in bands of rows
// of tiles, within which rows are fastest, so that what runs at a time reads few tokens and few weights.
#pragma once

namespace fathom::ops::cuda {

struct BandPlace {
  int across, row;  // of tiles
};
// Of tile `index` of across * rows, in bands of `band` rows.
__device__ inline BandPlace place_in_bands(int index, int across, int rows, int band) {
  const int first = index / (across * band) * band;
  const int lines = min(band, rows - first);
  const int within = index - first * across;
  return {within / lines, first + within % lines};
}

}  // namespace fathom::ops::cuda
