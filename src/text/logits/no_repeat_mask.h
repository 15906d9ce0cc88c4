// Forbids tokens that would complete an n-gram which the last tokens, prompt and output together, hold
// already: what keeps OCR models out of loops.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/token_mask.h"

namespace fathom::text {

struct NoRepeatRule {
  int32_t ngram = 0;             // tokens, at least 1
  int32_t window = 0;            // n-grams that begin within so many of the last tokens, at least 1
  std::vector<int32_t> allowed;  // tokens that may repeat
};

class NoRepeatMaskSource final : public TokenMaskSource {
 public:
  NoRepeatMaskSource(NoRepeatRule rule, std::vector<int32_t> prompt)
      : rule_(std::make_shared<const NoRepeatRule>(std::move(rule))), prompt_(std::move(prompt)) {}
  std::unique_ptr<TokenMask> begin() const override;

 private:
  const std::shared_ptr<const NoRepeatRule> rule_;
  const std::vector<int32_t> prompt_;
};

// What both of two masks allow. Where that is nothing, the first one's tokens.
class JointMaskSource final : public TokenMaskSource {
 public:
  JointMaskSource(std::shared_ptr<const TokenMaskSource> first, std::shared_ptr<const TokenMaskSource> second)
      : first_(std::move(first)), second_(std::move(second)) {}
  std::unique_ptr<TokenMask> begin() const override;

 private:
  const std::shared_ptr<const TokenMaskSource> first_;
  const std::shared_ptr<const TokenMaskSource> second_;
};

}  // namespace fathom::text
