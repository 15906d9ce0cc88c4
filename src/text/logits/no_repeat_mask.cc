#include "text/logits/no_repeat_mask.h"

#include <algorithm>

namespace fathom::text {
namespace {

class NoRepeatMask final : public TokenMask {
 public:
  NoRepeatMask(std::shared_ptr<const NoRepeatRule> rule, const std::vector<int32_t>& prompt)
      : rule_(std::move(rule)), tokens_(prompt) {
    forbid();
  }

  // Takes what it forbids, too: where another mask leaves nothing else, that one wins.
  bool accept(int32_t token) override {
    tokens_.push_back(token);
    forbid();
    return true;
  }
  void rollback(int count) override {
    tokens_.resize(tokens_.size() - static_cast<size_t>(count));
    forbid();
  }
  bool constrains() const override { return !forbidden_.empty(); }
  Result<void> fill(std::span<uint64_t> allowed) override {
    std::fill(allowed.begin(), allowed.end(), ~uint64_t{0});
    for (const int32_t token : forbidden_) {
      const auto word = static_cast<size_t>(token) / 64;
      if (word < allowed.size()) allowed[word] &= ~(uint64_t{1} << (token % 64));
    }
    return {};
  }

 private:
  void forbid() {
    forbidden_.clear();
    const auto length = static_cast<int64_t>(tokens_.size());
    const int64_t start = std::max<int64_t>(0, length - rule_->window);
    const auto last = tokens_.end() - std::min<int64_t>(length, rule_->ngram - 1);
    for (int64_t i = start; i + rule_->ngram <= length; ++i) {
      const auto begin = tokens_.begin() + i;
      if (!std::equal(last, tokens_.end(), begin)) continue;
      const int32_t token = begin[rule_->ngram - 1];
      if (std::find(rule_->allowed.begin(), rule_->allowed.end(), token) == rule_->allowed.end()) {
        forbidden_.push_back(token);
      }
    }
  }

  const std::shared_ptr<const NoRepeatRule> rule_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> forbidden_;
};

class JointMask final : public TokenMask {
 public:
  JointMask(std::unique_ptr<TokenMask> first, std::unique_ptr<TokenMask> second)
      : first_(std::move(first)), second_(std::move(second)) {}

  bool accept(int32_t token) override {
    if (!first_->accept(token)) return false;
    if (second_->accept(token)) return true;
    first_->rollback(1);
    return false;
  }
  void rollback(int count) override {
    first_->rollback(count);
    second_->rollback(count);
  }
  bool constrains() const override { return first_->constrains() || second_->constrains(); }
  Result<void> fill(std::span<uint64_t> allowed) override {
    if (!first_->constrains()) return second_->fill(allowed);
    FATHOM_TRY(first_->fill(allowed));
    if (!second_->constrains()) return {};
    also_.resize(allowed.size());
    FATHOM_TRY(second_->fill(also_));
    bool any = false;
    for (size_t i = 0; i < allowed.size(); ++i) any = any || (allowed[i] & also_[i]) != 0;
    if (!any) return {};
    for (size_t i = 0; i < allowed.size(); ++i) allowed[i] &= also_[i];
    return {};
  }

 private:
  std::unique_ptr<TokenMask> first_;
  std::unique_ptr<TokenMask> second_;
  std::vector<uint64_t> also_;
};

}  // namespace

std::unique_ptr<TokenMask> NoRepeatMaskSource::begin() const {
  return std::make_unique<NoRepeatMask>(rule_, prompt_);
}

std::unique_ptr<TokenMask> JointMaskSource::begin() const {
  return std::make_unique<JointMask>(first_->begin(), second_->begin());
}

}  // namespace fathom::text
