#include "sample/verify.h"

#include <algorithm>

#include "sample/sampler.h"

namespace fathom::sample {
namespace {

void verify_row(const device::Tensor& logits, const VerifyRow& row) {
  const int64_t vocab = logits.dim(1);
  const auto& stops = row.slot->params().stop_token_ids;
  const MaskWorkers::Found* mask = row.mask;
  std::vector<int32_t> guessed;
  for (int32_t node = GuessTree::kRoot;;) {
    const AllowedTokens allowed =
        mask != nullptr && mask->constrains ? AllowedTokens(mask->allowed) : AllowedTokens();
    guessed.clear();
    if (row.thresholds != nullptr && row.guesses != nullptr) row.guesses->children(node, &guessed);
    TokenOutput output = sample_row(logits.row<float>(row.first + 1 + node), vocab, *row.slot, allowed,
                                    {guessed, row.thresholds});
    const int32_t token = output.token;
    row.slot->accept(token);
    row.outputs->push_back(std::move(output));
    if (row.guesses == nullptr || std::ranges::find(stops, token) != stops.end()) return;
    node = row.guesses->child(node, token);
    if (node == GuessTree::kNone) return;
    if (row.path != nullptr) row.path->push_back(node);
    if (row.mask == nullptr) continue;
    if (static_cast<size_t>(node) >= row.guess_masks.size()) return;
    mask = &row.guess_masks[static_cast<size_t>(node)];
    if (mask->error) return;
  }
}

}  // namespace

void verify_rows(ThreadPool& pool, const device::Tensor& logits, std::span<const VerifyRow> rows) {
  pool.parallel_for(static_cast<int64_t>(rows.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) verify_row(logits, rows[static_cast<size_t>(r)]);
  });
}

}  // namespace fathom::sample
