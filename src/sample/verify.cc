#include "sample/verify.h"

#include <algorithm>
#include <functional>

#include "base/random.h"
#include "sample/sampler.h"

namespace fathom::sample {
namespace {

// The node that holds once `token` was chosen after `node`, or kNone.
int32_t next_node(const VerifyRow& row, int32_t node, int32_t token) {
  if (row.simulated < 0.0) return row.guesses->child(node, token);
  const double draw = random_uniform(row.slot->params().seed, static_cast<uint64_t>(row.first) + 1,
                                     static_cast<uint64_t>(row.slot->generated()));
  return draw < row.simulated ? row.guesses->first_child(node) : GuessTree::kNone;
}

void verify_row(const device::Tensor& logits, const VerifyRow& row) {
  const int64_t vocab = logits.dim(1);
  const auto& stops = row.slot->params().stop_token_ids;
  const MaskWorkers::Found* mask = row.mask;
  std::vector<int32_t> guessed;
  row.outputs->reserve(row.outputs->size() + 1 + (row.guesses != nullptr ? row.guesses->size() : 0));
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
    node = next_node(row, node, token);
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
  const auto body = [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) verify_row(logits, rows[static_cast<size_t>(r)]);
  };
  pool.parallel_for(static_cast<int64_t>(rows.size()), 1, std::ref(body));
}

}  // namespace fathom::sample
