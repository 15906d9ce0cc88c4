#include "text/grammar/grammar.h"

#include <algorithm>

namespace fathom::text {
namespace {

using Kind = GrammarEdge::Kind;

// In one step, or for one base mask. Ordinary grammars need some thousands; this is about a tenth of a
// second.
constexpr uint64_t kMaxWork = 300'000;
constexpr size_t kMaxConfigurations = 32'768;  // a KiB and more each

Error too_costly() {
  return error(ErrorCode::kInvalidArgument,
               "the grammar is too ambiguous: finding the next tokens takes too long; simplify it");
}

// Walks the trie's nodes [first, last), which are below one node (or all), from `start`. Calls
// `allow(node, configuration)` for each node that can be reached. False: too much work.
template <class Allow>
bool walk(const TokenTrie& trie, int32_t first, int32_t last, Configurations* configurations, int32_t start,
          Allow allow) {
  if (first >= last || start == Configurations::kDead) return true;
  const auto& nodes = trie.nodes();
  const int base = nodes[static_cast<size_t>(first)].depth;
  thread_local std::vector<int32_t> path;
  path.assign(1, start);
  for (int32_t i = first; i < last;) {
    const TokenTrie::Node& node = nodes[static_cast<size_t>(i)];
    const auto depth = static_cast<size_t>(node.depth - base);
    const int32_t configuration = configurations->next(path[depth], node.byte);
    if (configuration == Configurations::kDead) {
      i = node.end;
      continue;
    }
    allow(i, configuration);
    path.resize(depth + 1);
    path.push_back(configuration);
    ++i;
    if (configurations->exhausted() || configurations->count() > kMaxConfigurations) return false;
  }
  return true;
}

void set_bit(std::span<uint64_t> bits, int32_t token) {
  const auto word = static_cast<size_t>(token) / 64;
  if (word < bits.size()) bits[word] |= uint64_t{1} << (token % 64);
}

void clear_bit(std::span<uint64_t> bits, int32_t token) {
  const auto word = static_cast<size_t>(token) / 64;
  if (word < bits.size()) bits[word] &= ~(uint64_t{1} << (token % 64));
}

class GrammarMask final : public TokenMask {
 public:
  GrammarMask(std::shared_ptr<Grammar> grammar, int32_t after_token)
      : grammar_(std::move(grammar)), configurations_(grammar_->automaton()), after_token_(after_token) {
    const Automaton& automaton = grammar_->automaton();
    const int32_t start = automaton.rules[static_cast<size_t>(automaton.root)].start;
    configurations_.allow_work(kMaxWork);
    at_ = configurations_.at(Configurations::kBottom, start);
  }

  bool constrains() const override { return true; }

  void accept(int32_t token) override {
    if (after_token_ >= 0) {
      if (token == after_token_) after_token_ = -1;
      return;
    }
    if (over_ || configurations_.exhausted()) return;
    configurations_.allow_work(kMaxWork);
    const GrammarTokens& tokens = grammar_->tokens();
    if (is_eos(token)) {
      over_ = true;
      return;
    }
    int32_t next = at_;
    if (tokens.tokenizer().is_added(token) || tokens.tokenizer().is_special(token)) {
      next = configurations_.next_token(next, token);
    } else {
      for (char byte : tokens.tokenizer().token_bytes(token)) {
        if (next != Configurations::kDead) next = configurations_.next(next, static_cast<uint8_t>(byte));
      }
    }
    if (next != Configurations::kDead && !configurations_.exhausted()) at_ = configurations_.trim(next);
  }

  Result<void> fill(std::span<uint64_t> allowed) override {
    if (after_token_ >= 0) {  // thoughts are free, but must end before the output does
      std::fill(allowed.begin(), allowed.end(), ~uint64_t{0});
      for (int32_t id : grammar_->tokens().eos_ids()) clear_bit(allowed, id);
      return {};
    }
    std::fill(allowed.begin(), allowed.end(), 0);
    if (configurations_.exhausted()) return too_costly();
    if (!over_) {
      configurations_.allow_work(kMaxWork);
      // A copy: following exits makes new configurations.
      const std::vector<Configurations::Way> ways = configurations_.ways(at_);
      for (const Configurations::Way& way : ways) {
        FATHOM_TRY(allow_way(way, allowed));
        if (configurations_.exhausted()) return too_costly();
      }
    }
    const bool any = std::any_of(allowed.begin(), allowed.end(), [](uint64_t word) { return word != 0; });
    if (over_ || !any || configurations_.ended(at_)) {
      for (int32_t id : grammar_->tokens().eos_ids()) set_bit(allowed, id);
    }
    return {};
  }

 private:
  bool is_eos(int32_t token) const {
    const auto& ids = grammar_->tokens().eos_ids();
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  }

  Result<void> allow_way(const Configurations::Way& way, std::span<uint64_t> allowed) {
    bool reads_bytes = false;
    for (const GrammarEdge& edge : grammar_->automaton().states[static_cast<size_t>(way.state)].edges) {
      if (edge.kind == Kind::kToken) set_bit(allowed, edge.argument);
      if (edge.kind == Kind::kByte) reads_bytes = true;
    }
    if (!reads_bytes) return {};
    FATHOM_ASSIGN(const std::shared_ptr<const BaseMask> base, grammar_->base_mask(way.state));
    for (int32_t token : base->tokens) set_bit(allowed, token);
    for (size_t i = 0; i < std::min(base->bits.size(), allowed.size()); ++i) allowed[i] |= base->bits[i];
    if (way.stack == Configurations::kBottom || base->exits.empty()) return {};
    // What follows in the caller.
    const Configurations::Way back = configurations_.caller(way.stack);
    const int32_t after = configurations_.at(back.stack, back.state);
    const TokenTrie& trie = grammar_->tokens().trie();
    for (int32_t exit : base->exits) {
      const bool done = walk(trie, exit + 1, trie.nodes()[static_cast<size_t>(exit)].end, &configurations_,
                             after, [&](int32_t node, int32_t) {
                               const int32_t token = trie.nodes()[static_cast<size_t>(node)].token;
                               if (token >= 0) set_bit(allowed, token);
                             });
      if (!done) return too_costly();
    }
    return {};
  }

  const std::shared_ptr<Grammar> grammar_;
  Configurations configurations_;
  int32_t after_token_;
  int32_t at_;
  bool over_ = false;
};

}  // namespace

GrammarTokens::GrammarTokens(const Tokenizer& tokenizer, std::vector<int32_t> eos_ids)
    : tokenizer_(tokenizer), trie_(tokenizer), eos_ids_(std::move(eos_ids)) {}

std::shared_ptr<const BaseMask> GrammarTokens::find(const std::string& shape) const {
  std::lock_guard lock(mutex_);
  const auto it = by_shape_.find(shape);
  return it == by_shape_.end() ? nullptr : it->second;
}

void GrammarTokens::keep(const std::string& shape, std::shared_ptr<const BaseMask> mask) {
  std::lock_guard lock(mutex_);
  if (by_shape_.size() < kMaxKept) by_shape_.emplace(shape, std::move(mask));
}

Grammar::Grammar(std::shared_ptr<GrammarTokens> tokens, Automaton automaton)
    : tokens_(std::move(tokens)), automaton_(std::move(automaton)) {}

// The states that a state reaches, numbered in the order they are met, with their edges. Empty when there are
// many: such states are hardly ever met twice.
std::string Grammar::shape_of(int32_t state) const {
  constexpr size_t kMaxShape = 128;
  std::unordered_map<int32_t, size_t> numbers = {{state, 0}};
  std::vector<int32_t> order = {state};
  const auto number = [&](int32_t s) {
    const auto [it, added] = numbers.try_emplace(s, order.size());
    if (added) order.push_back(s);
    return it->second;
  };
  std::string shape;
  for (size_t i = 0; i < order.size(); ++i) {
    if (order.size() > kMaxShape) return {};
    const GrammarState& at = automaton_.states[static_cast<size_t>(order[i])];
    shape += at.end ? '!' : '.';
    for (const GrammarEdge& edge : at.edges) {
      // Markers end no token's bytes, so they tell nothing here.
      if (edge.kind == Kind::kByte) {
        shape += 'b';
        shape += static_cast<char>(edge.low);
        shape += static_cast<char>(edge.high);
        shape += fmt::format("{};", number(edge.target));
      } else if (edge.kind == Kind::kCall) {
        const int32_t start = automaton_.rules[static_cast<size_t>(edge.argument)].start;
        const size_t called = number(start);
        shape += fmt::format("c{},{};", called, number(edge.target));
      }
    }
  }
  return shape;
}

Result<std::shared_ptr<const BaseMask>> Grammar::make_base_mask(int32_t state) const {
  Configurations configurations(automaton_);
  configurations.allow_work(kMaxWork);
  const TokenTrie& trie = tokens_->trie();
  auto mask = std::make_shared<BaseMask>();
  std::vector<int32_t> tokens;
  const bool done =
      walk(trie, 0, static_cast<int32_t>(trie.nodes().size()), &configurations,
           configurations.at(Configurations::kBottom, state), [&](int32_t node, int32_t reached) {
             const int32_t token = trie.nodes()[static_cast<size_t>(node)].token;
             if (token >= 0) tokens.push_back(token);
             if (configurations.ended(reached) && trie.has_children(node)) {
               mask->exits.push_back(node);
             }
           });
  if (!done) return too_costly();
  const size_t words = num_mask_words(tokens_->tokenizer().vocab_size());
  if (tokens.size() > words) {
    mask->bits.resize(words);
    for (int32_t token : tokens) set_bit(mask->bits, token);
  } else {
    mask->tokens = std::move(tokens);
  }
  return std::shared_ptr<const BaseMask>(std::move(mask));
}

Result<std::shared_ptr<const BaseMask>> Grammar::base_mask(int32_t state) {
  std::lock_guard lock(mutex_);
  std::shared_ptr<const BaseMask>& known = base_masks_[state];
  if (known != nullptr) return known;
  const std::string shape = shape_of(state);
  if (!shape.empty()) known = tokens_->find(shape);
  if (known != nullptr) return known;
  FATHOM_ASSIGN(known, make_base_mask(state));
  if (!shape.empty() && !known->bits.empty()) tokens_->keep(shape, known);
  return known;
}

std::unique_ptr<TokenMask> GrammarMaskSource::begin() const {
  return std::make_unique<GrammarMask>(grammar_, after_token_);
}

bool matches(const Automaton& automaton, std::string_view text) {
  Configurations configurations(automaton);
  int32_t at =
      configurations.at(Configurations::kBottom, automaton.rules[static_cast<size_t>(automaton.root)].start);
  for (char byte : text) {
    if (at != Configurations::kDead) at = configurations.next(at, static_cast<uint8_t>(byte));
  }
  return at != Configurations::kDead && configurations.ended(at);
}

}  // namespace fathom::text
