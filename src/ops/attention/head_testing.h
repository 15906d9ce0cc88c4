// Batches of rows over a paged cache for the ops that attend head by head. Included by tests only.
#pragma once

#include "ops/attention/testing.h"

namespace fathom::ops {
namespace {

struct Row {
  int32_t count, length;  // the last `count` of `length` places are the row's tokens
};

inline std::vector<int32_t> lengths_of(const std::vector<Row>& rows) {
  std::vector<int32_t> list;
  for (const Row& row : rows) list.push_back(row.length);
  return list;
}

inline std::vector<AttentionRow> attention_rows(const std::vector<Row>& rows,
                                                const PagedSequences& sequences) {
  std::vector<AttentionRow> list;
  int32_t tokens = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    list.push_back({tokens, rows[i].count, rows[i].length - rows[i].count, sequences.table(i)});
    tokens += rows[i].count;
  }
  return list;
}

inline std::vector<Row> random_rows(std::mt19937& random, uint32_t longest) {
  std::vector<Row> rows;
  for (uint32_t i = 1 + random() % 4; i > 0; --i) {
    const uint32_t length = 1 + random() % (random() % 3 == 0 ? longest : 150);
    const uint32_t count = random() % 3 == 0 ? length : 1 + random() % length;
    rows.push_back({static_cast<int32_t>(count), static_cast<int32_t>(length)});
  }
  return rows;
}

}  // namespace
}  // namespace fathom::ops
