// grammar.h: GrammarMaskSource, and where one output stands.
#include <algorithm>
#include <deque>

#include "text/grammar/grammar.h"
#include "text/grammar/grammar_walk.h"

namespace fathom::text {
namespace {

using Kind = GrammarEdge::Kind;

// Work, in nodes of a trie of some five nanoseconds each. Ordinary grammars need some hundreds a token, and
// some ten thousands, at most 400,000 (all nodes), where a mask is found for the first time. What an output
// has not used it keeps for later.
constexpr uint64_t kBudgetAtStart = 30'000'000;
constexpr uint64_t kBudgetEachToken = 400'000;
constexpr uint64_t kMostBudget = 30'000'000;

Error too_costly() {
  return error(
      ErrorCode::kInvalidArgument,
      "the grammar is too ambiguous or too large: finding the next tokens takes too long; simplify it");
}

class GrammarMask final : public TokenMask {
 public:
  GrammarMask(std::shared_ptr<Grammar> grammar, int32_t after_token)
      : grammar_(std::move(grammar)), configurations_(grammar_->automaton()) {
    const Automaton& automaton = grammar_->automaton();
    configurations_.allow_work(budget_);
    at_.configuration = configurations_.at(Configurations::kBottom,
                                           automaton.rules[static_cast<size_t>(automaton.root)].start);
    at_.after_token = after_token;
    take_work();
    may_be_empty_ = !costly_ && configurations_.ended(at_.configuration);
  }

  bool constrains() const override { return at_.after_token < 0 || !may_be_empty_; }

  bool accept(int32_t token) override {
    Position next = at_;
    if (!follow(token, &next)) return false;
    before_.push_back(at_);
    if (before_.size() > kMaxRollback) before_.pop_front();
    at_ = next;
    std::vector<int32_t*> kept = {&at_.configuration};
    for (Position& position : before_) kept.push_back(&position.configuration);
    configurations_.trim(kept);
    return true;
  }

  void rollback(int count) override {
    FATHOM_CHECK(count >= 0 && static_cast<size_t>(count) <= before_.size(), "{} of {} tokens", count,
                 before_.size());
    if (count == 0) return;
    at_ = before_[before_.size() - static_cast<size_t>(count)];
    before_.resize(before_.size() - static_cast<size_t>(count));
  }

  Result<void> fill(std::span<uint64_t> allowed) override {
    std::fill(allowed.begin(), allowed.end(), 0);
    const GrammarTokens& tokens = grammar_->tokens();
    if (at_.after_token >= 0) {
      allow_thoughts(allowed);
      return {};
    }
    budget_ = std::min(budget_ + kBudgetEachToken, kMostBudget);
    if (!at_.over) FATHOM_TRY(allow_ways(allowed));
    const bool any = std::any_of(allowed.begin(), allowed.end(), [](uint64_t word) { return word != 0; });
    if (at_.over || !any || configurations_.ended(at_.configuration)) {
      for (const int32_t id : tokens.eos_ids()) set_bit(allowed, id);
    }
    return {};
  }

 private:
  struct Position {
    int32_t configuration = 0;
    int32_t after_token = -1;  // the thoughts end with it
    bool over = false;
  };

  bool is_eos(int32_t token) const {
    const auto& ids = grammar_->tokens().eos_ids();
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  }

  // What configurations say after too much work is worthless.
  void take_work() {
    budget_ -= std::min(budget_, configurations_.work());
    costly_ = costly_ || configurations_.exhausted();
  }

  bool follow(int32_t token, Position* at) {
    if (at->after_token >= 0) {
      if (is_eos(token) && !may_be_empty_) return false;
      if (token == at->after_token) at->after_token = -1;
      return true;
    }
    if (at->over || costly_) return false;
    if (is_eos(token)) {
      at->over = true;
      return configurations_.ended(at->configuration);
    }
    const Tokenizer& tokenizer = grammar_->tokens().tokenizer();
    configurations_.allow_work(budget_);
    int32_t next = at->configuration;
    if (tokenizer.is_added(token) || tokenizer.is_special(token)) {
      next = configurations_.next_token(next, token);
    } else {
      const std::string_view bytes = tokenizer.token_bytes(token);
      if (bytes.empty()) return false;
      for (const char byte : bytes) {
        if (next != Configurations::kDead) next = configurations_.next(next, static_cast<uint8_t>(byte));
      }
    }
    take_work();
    at->configuration = next;
    return next != Configurations::kDead && !costly_;
  }

  // Everything but the end of the output.
  void allow_thoughts(std::span<uint64_t> allowed) const {
    const GrammarTokens& tokens = grammar_->tokens();
    for (int32_t id = 0; id < tokens.tokenizer().vocab_size(); ++id) {
      if (id % 64 == 0 && id + 64 <= tokens.tokenizer().vocab_size()) {
        allowed[static_cast<size_t>(id) / 64] = ~uint64_t{0};
        id += 63;
      } else {
        set_bit(allowed, id);
      }
    }
    for (const int32_t id : tokens.eos_ids()) {
      const auto word = static_cast<size_t>(id) / 64;
      if (word < allowed.size()) allowed[word] &= ~(uint64_t{1} << (id % 64));
    }
  }

  Result<void> allow_ways(std::span<uint64_t> allowed) {
    if (costly_) return too_costly();
    const TokenTrie& trie = grammar_->tokens().all();
    const std::vector<Configurations::Way>& ways = configurations_.ways(at_.configuration);
    // Near the limit of nesting, layers would promise what cannot be read any more.
    const bool deep = std::any_of(ways.begin(), ways.end(), [&](const Configurations::Way& way) {
      return configurations_.depth(way.stack) + trie.max_depth() > Configurations::kMaxDepth;
    });
    for (const Configurations::Way& way : ways) {
      bool reads_bytes = false;
      for (const GrammarEdge& edge : grammar_->automaton().states[static_cast<size_t>(way.state)].edges) {
        if (edge.kind == Kind::kToken) set_bit(allowed, edge.argument);
        if (edge.kind == Kind::kByte) reads_bytes = true;
      }
      if (reads_bytes && !deep) FATHOM_TRY(grammar_->allow(configurations_, way, &budget_, allowed));
    }
    if (!deep) return {};
    configurations_.allow_work(budget_);
    walk(trie, 0, static_cast<int32_t>(trie.nodes().size()), &configurations_, at_.configuration,
         [&](int32_t node, int32_t) {
           const int32_t token = trie.nodes()[static_cast<size_t>(node)].token;
           if (token >= 0) set_bit(allowed, token);
         });
    take_work();
    if (costly_) return too_costly();
    return {};
  }

  const std::shared_ptr<Grammar> grammar_;
  Configurations configurations_;
  uint64_t budget_ = kBudgetAtStart;
  bool costly_ = false;
  bool may_be_empty_ = false;
  Position at_;
  std::deque<Position> before_;
};

}  // namespace

std::unique_ptr<TokenMask> GrammarMaskSource::begin() const {
  return std::make_unique<GrammarMask>(grammar_, after_token_);
}

}  // namespace fathom::text
