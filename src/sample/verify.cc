#include "sample/verify.h"

#include <algorithm>

#include "base/check.h"
#include "sample/sampler.h"

namespace fathom::sample {
namespace {

void verify_row(const device::Tensor& logits, const VerifyRow& row) {
  const int64_t vocab = logits.dim(1);
  FATHOM_CHECK(row.guesses.empty() || row.allowed.empty(), "{} guesses under a mask", row.guesses.size());
  const auto& stops = row.slot->params().stop_token_ids;
  for (size_t i = 0;; ++i) {
    TokenOutput output =
        sample_row(logits.row<float>(row.first + static_cast<int64_t>(i)), vocab, *row.slot, row.allowed);
    const int32_t token = output.token;
    row.slot->accept(token);
    row.outputs->push_back(std::move(output));
    if (i == row.guesses.size() || token != row.guesses[i]) return;
    if (std::ranges::find(stops, token) != stops.end()) return;
  }
}

}  // namespace

void verify_rows(ThreadPool& pool, const device::Tensor& logits, std::span<const VerifyRow> rows) {
  pool.parallel_for(static_cast<int64_t>(rows.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) verify_row(logits, rows[static_cast<size_t>(r)]);
  });
}

}  // namespace fathom::sample
