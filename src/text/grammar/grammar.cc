#include "text/grammar/grammar.h"

#include <algorithm>

#include "text/grammar/grammar_walk.h"

namespace fathom::text {
namespace {

using Kind = GrammarEdge::Kind;

Error too_costly() {
  return error(
      ErrorCode::kInvalidArgument,
      "the grammar is too ambiguous or too large: finding the next tokens takes too long; simplify it");
}

}  // namespace

Grammar::Grammar(std::shared_ptr<GrammarTokens> tokens, Automaton automaton)
    : tokens_(std::move(tokens)),
      automaton_(std::move(automaton)),
      plain_(automaton_),
      returns_(automaton_.states.size()),
      configurations_(automaton_) {
  std::vector<bool> called(automaton_.rules.size());
  for (const GrammarState& state : automaton_.states) {
    automaton_bytes_ += sizeof(GrammarState) + state.edges.size() * sizeof(GrammarEdge);
    for (const GrammarEdge& edge : state.edges) {
      if (edge.kind == Kind::kCall) called[static_cast<size_t>(edge.argument)] = true;
    }
  }
  // The states of called rules, by their edges.
  std::vector<int32_t> work;
  const auto reach = [&](int32_t state) {
    if (returns_[static_cast<size_t>(state)]) return;
    returns_[static_cast<size_t>(state)] = true;
    work.push_back(state);
  };
  for (size_t rule = 0; rule < called.size(); ++rule) {
    if (called[rule]) reach(automaton_.rules[rule].start);
  }
  while (!work.empty()) {
    const int32_t at = work.back();
    work.pop_back();
    for (const GrammarEdge& edge : automaton_.states[static_cast<size_t>(at)].edges) reach(edge.target);
  }
}

void Grammar::start_work(uint64_t budget) {
  constexpr size_t kMaxConfigurations = 16'384;
  if (configurations_.count() > kMaxConfigurations) configurations_.clear();
  configurations_.allow_work(budget);
}

Result<void> Grammar::end_work(uint64_t* budget) {
  const bool done = !configurations_.exhausted();
  *budget -= std::min(*budget, configurations_.work());
  if (done) return {};
  *budget = 0;
  configurations_.clear();
  return too_costly();
}

// The states that a state reaches, numbered in the order they are met, with their edges. Empty when there are
// many: such states are hardly ever met twice.
std::string Grammar::shape_of(int32_t state) const {
  constexpr size_t kMaxShape = 64;
  std::unordered_map<int32_t, int32_t> numbers = {{state, 0}};
  std::vector<int32_t> order = {state};
  std::string shape;
  const auto write_number = [&](int32_t s) {
    const auto [it, added] = numbers.try_emplace(s, static_cast<int32_t>(order.size()));
    if (added) order.push_back(s);
    shape += static_cast<char>(it->second);
  };
  shape += returns_[static_cast<size_t>(state)] ? 'r' : '-';
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
        write_number(edge.target);
      } else if (edge.kind == Kind::kCall) {
        shape += 'c';
        write_number(automaton_.rules[static_cast<size_t>(edge.argument)].start);
        write_number(edge.target);
      }
    }
  }
  return shape;
}

Result<std::shared_ptr<const BaseMask>> Grammar::find_base(int32_t state, uint64_t* budget) {
  start_work(*budget);
  const int32_t start = configurations_.at(Configurations::kBottom, state);
  const bool returns = returns_[static_cast<size_t>(state)];
  // States that let most characters through cost much and are met often.
  const std::optional<int> plain =
      start == Configurations::kDead ? std::nullopt : plain_.count(&configurations_, start, returns);
  std::string shape;
  if (plain && *plain > 0) {
    constexpr uint64_t kShapeWork = 1000;
    configurations_.spend(kShapeWork);
    shape = shape_of(state);
    if (auto known = shape.empty() ? nullptr : tokens_->find(shape); known != nullptr) return known;
  }
  auto mask = std::make_shared<BaseMask>();
  mask->trie = plain ? &tokens_->others() : &tokens_->all();
  std::vector<int32_t> tokens;
  const TokenTrie& trie = *mask->trie;
  walk(trie, 0, static_cast<int32_t>(trie.nodes().size()), &configurations_, start,
       [&](int32_t node, int32_t reached) {
         const int32_t token = trie.nodes()[static_cast<size_t>(node)].token;
         if (token >= 0) tokens.push_back(token);
         if (returns && configurations_.ended(reached) && trie.has_children(node))
           mask->exits.push_back(node);
       });
  FATHOM_TRY(end_work(budget));
  mask->tokens = plain && *plain > 0 ? TokenSet(tokens_->plain_up_to(*plain), tokens)
                                     : TokenSet(std::move(tokens), tokens_->words());
  mask->exits.shrink_to_fit();
  if (!shape.empty()) tokens_->keep(shape, mask);
  return std::shared_ptr<const BaseMask>(std::move(mask));
}

Result<Grammar::Layer*> Grammar::layer_of(int32_t state, uint64_t* budget) {
  std::unique_ptr<Layer>& layer = layers_[state];
  if (layer == nullptr) {
    auto made = std::make_unique<Layer>();
    FATHOM_ASSIGN(made->mask, find_base(state, budget));
    mask_bytes_ += made->mask->bytes() + sizeof(Layer);
    layer = std::move(made);
  }
  return layer.get();
}

// What the tokens that leave `layer` go on with in its caller, at `state`.
Result<Grammar::Layer*> Grammar::layer_after(Layer* layer, int32_t state, uint64_t* budget) {
  std::unique_ptr<Layer>& after = layer->callers[state];
  if (after != nullptr) return after.get();
  start_work(*budget);
  auto mask = std::make_shared<BaseMask>();
  mask->trie = layer->mask->trie;
  const TokenTrie& trie = *mask->trie;
  const int32_t start = configurations_.at(Configurations::kBottom, state);
  const bool returns = returns_[static_cast<size_t>(state)];
  const bool at_end = returns && start != Configurations::kDead && configurations_.ended(start);
  std::vector<int32_t> tokens;
  for (const int32_t exit : layer->mask->exits) {
    if (at_end) mask->exits.push_back(exit);
    const bool going = walk(trie, exit + 1, trie.nodes()[static_cast<size_t>(exit)].end, &configurations_,
                            start, [&](int32_t node, int32_t reached) {
                              const int32_t token = trie.nodes()[static_cast<size_t>(node)].token;
                              if (token >= 0) tokens.push_back(token);
                              if (returns && configurations_.ended(reached) && trie.has_children(node))
                                mask->exits.push_back(node);
                            });
    if (!going) break;
  }
  FATHOM_TRY(end_work(budget));
  mask->tokens = TokenSet(std::move(tokens), tokens_->words());
  mask->exits.shrink_to_fit();
  after = std::make_unique<Layer>();
  after->mask = std::move(mask);
  mask_bytes_ += after->mask->bytes() + sizeof(Layer);
  return after.get();
}

void Grammar::forget_when_large() {
  if (mask_bytes_ <= kMaxMaskBytes) return;
  layers_.clear();
  mask_bytes_ = 0;
}

Result<void> Grammar::allow(const Configurations& configurations, const Configurations::Way& way,
                            uint64_t* budget, std::span<uint64_t> allowed) {
  std::lock_guard lock(mutex_);
  forget_when_large();
  FATHOM_ASSIGN(Layer * layer, layer_of(way.state, budget));
  const uint64_t cost = 16 + (layer->mask->tokens.is_large() ? tokens_->words() / 8 : 0);
  if (*budget <= cost) return too_costly();
  *budget -= cost;
  layer->mask->tokens.add_to(allowed);
  for (int32_t stack = way.stack; stack != Configurations::kBottom && !layer->mask->exits.empty();) {
    const Configurations::Way back = configurations.caller(stack);
    FATHOM_ASSIGN(layer, layer_after(layer, back.state, budget));
    layer->mask->tokens.add_to(allowed);
    stack = back.stack;
  }
  return {};
}

void Grammar::prepare(uint64_t budget) {
  std::lock_guard lock(mutex_);
  for (size_t s = 0; s < automaton_.states.size(); ++s) {
    const auto& edges = automaton_.states[s].edges;
    if (std::none_of(edges.begin(), edges.end(),
                     [](const GrammarEdge& edge) { return edge.kind == Kind::kByte; }))
      continue;
    if (mask_bytes_ > kMaxMaskBytes / 2) return;
    // Not enough budget for everything is no error; the rest is found when it is needed.
    if (!layer_of(static_cast<int32_t>(s), &budget).ok()) return;
  }
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
