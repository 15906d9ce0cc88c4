#include "text/template/expression_parser.h"

#include <algorithm>

namespace fathom::text::jinja {

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (++parser.nesting_ > kMaxNesting) {
    --parser.nesting_;
    parser.fail_here(fmt::format("nested deeper than {} levels", kMaxNesting));
  }
}

bool ExpressionParser::skip_operator(const char* text) {
  if (!at_operator(text)) return false;
  take();
  return true;
}
bool ExpressionParser::skip_name(const char* text) {
  if (!at_name(text)) return false;
  take();
  return true;
}
void ExpressionParser::expect_operator(const char* text) {
  if (!skip_operator(text)) fail_here(fmt::format("expected '{}', got '{}'", text, describe(current())));
}
void ExpressionParser::expect_name(const char* text) {
  if (!skip_name(text)) fail_here(fmt::format("expected '{}', got '{}'", text, describe(current())));
}
std::string ExpressionParser::expect_any_name() {
  if (current().kind != TokenKind::kName)
    fail_here(fmt::format("expected a name, got '{}'", describe(current())));
  return take().text;
}

void ExpressionParser::fail_here(const std::string& message) const {
  fail_at(current().line, "{}", message);
}

std::string ExpressionParser::describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "template text";
    case TokenKind::kVariableBegin:
      return "{{";
    case TokenKind::kVariableEnd:
      return "}}";
    case TokenKind::kBlockBegin:
      return "{%";
    case TokenKind::kBlockEnd:
      return "%}";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInteger:
      return "an integer";
    case TokenKind::kFloat:
      return "a float";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return token.text;
  }
}

ExprPtr ExpressionParser::make(ExprKind kind, int line) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExprPtr ExpressionParser::finish(ExprPtr node) const {
  int below = 0;
  for_each_child(*node, [&](const Expr& child) { below = std::max(below, child.depth); });
  node->depth = below + 1;
  if (node->depth > kMaxDepth) fail_at(node->line, "the expression is deeper than {} levels", kMaxDepth);
  return node;
}

ExprPtr ExpressionParser::pair(ExprKind kind, int line, ExprPtr left, ExprPtr right) const {
  auto node = make(kind, line);
  node->children.push_back(std::move(left));
  node->children.push_back(std::move(right));
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_expression(bool conditional) {
  const Nesting nesting(*this);
  return conditional ? parse_conditional() : parse_or();
}

ExprPtr ExpressionParser::parse_conditional() {
  const Nesting nesting(*this);
  int line = current().line;
  ExprPtr value = parse_or();
  while (skip_name("if")) {
    auto node = make(ExprKind::kConditional, line);
    node->children.push_back(parse_or());
    node->children.push_back(std::move(value));
    node->children.push_back(skip_name("else") ? parse_conditional() : nullptr);
    value = finish(std::move(node));
    line = current().line;
  }
  return value;
}

ExprPtr ExpressionParser::parse_or() {
  const int line = current().line;
  ExprPtr left = parse_and();
  while (skip_name("or")) left = pair(ExprKind::kOr, line, std::move(left), parse_and());
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  const int line = current().line;
  ExprPtr left = parse_not();
  while (skip_name("and")) left = pair(ExprKind::kAnd, line, std::move(left), parse_not());
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!at_name("not")) return parse_compare();
  const Nesting nesting(*this);
  auto node = make(ExprKind::kNot, take().line);
  node->children.push_back(parse_not());
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_compare() {
  auto node = make(ExprKind::kCompare, current().line);
  node->children.push_back(parse_sum());
  for (;;) {
    if (at_name("not") && look().is_name("in")) {
      take();
      take();
      node->compares.push_back(CompareOp::kNotIn);
    } else if (skip_name("in")) {
      node->compares.push_back(CompareOp::kIn);
    } else {
      constexpr std::pair<const char*, CompareOp> kOps[] = {{"==", CompareOp::kEq}, {"!=", CompareOp::kNe},
                                                            {"<", CompareOp::kLt},  {"<=", CompareOp::kLe},
                                                            {">", CompareOp::kGt},  {">=", CompareOp::kGe}};
      const auto* op =
          std::find_if(std::begin(kOps), std::end(kOps), [&](auto& o) { return at_operator(o.first); });
      if (op == std::end(kOps)) break;
      take();
      node->compares.push_back(op->second);
    }
    node->children.push_back(parse_sum());
  }
  if (node->compares.empty()) return std::move(node->children[0]);
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_sum() {
  const int line = current().line;
  ExprPtr left = parse_concat();
  while (at_operator("+") || at_operator("-")) {
    const BinaryOp op = take().text == "+" ? BinaryOp::kAdd : BinaryOp::kSub;
    left = pair(ExprKind::kBinary, line, std::move(left), parse_concat());
    left->binary = op;
  }
  return left;
}

ExprPtr ExpressionParser::parse_concat() {
  auto node = make(ExprKind::kConcat, current().line);
  node->children.push_back(parse_product());
  while (skip_operator("~")) node->children.push_back(parse_product());
  if (node->children.size() == 1) return std::move(node->children[0]);
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_product() {
  const int line = current().line;
  ExprPtr left = parse_power();
  for (;;) {
    BinaryOp op{};
    if (at_operator("*")) {
      op = BinaryOp::kMul;
    } else if (at_operator("/")) {
      op = BinaryOp::kDiv;
    } else if (at_operator("//")) {
      op = BinaryOp::kFloorDiv;
    } else if (at_operator("%")) {
      op = BinaryOp::kMod;
    } else {
      return left;
    }
    take();
    left = pair(ExprKind::kBinary, line, std::move(left), parse_power());
    left->binary = op;
  }
}

ExprPtr ExpressionParser::parse_power() {
  const int line = current().line;
  ExprPtr left = parse_unary(true);
  while (skip_operator("**")) {
    left = pair(ExprKind::kBinary, line, std::move(left), parse_unary(true));
    left->binary = BinaryOp::kPow;
  }
  return left;
}

ExprPtr ExpressionParser::parse_unary(bool with_filter) {
  const Nesting nesting(*this);
  const int line = current().line;
  ExprPtr node;
  if (at_operator("-") || at_operator("+")) {
    node = make(take().text == "-" ? ExprKind::kNegate : ExprKind::kPositive, line);
    node->children.push_back(parse_unary(false));
    node = finish(std::move(node));
  } else {
    node = parse_primary(false);
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filter_expression(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::parse_primary(bool with_namespace) {
  const Token token = current();
  auto node = make(ExprKind::kConstant, token.line);
  switch (token.kind) {
    case TokenKind::kName:
      take();
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        node->constant = Value::boolean(token.text == "true" || token.text == "True");
      } else if (token.text == "none" || token.text == "None") {
        node->constant = Value::none();
      } else if (with_namespace && skip_operator(".")) {
        node->kind = ExprKind::kNamespaceRef;
        node->name = token.text;
        node->attribute = expect_any_name();
        node->attribute_value = Value::constant(node->attribute);
      } else {
        node->kind = ExprKind::kName;
        node->name = token.text;
      }
      return node;
    case TokenKind::kString: {
      std::string text;
      while (current().kind == TokenKind::kString) text += take().text;
      node->constant = Value::constant(std::move(text));
      return node;
    }
    case TokenKind::kInteger:
      node->constant = Value::integer(take().integer);
      return node;
    case TokenKind::kFloat:
      node->constant = Value::number(take().number);
      return node;
    default:
      break;
  }
  if (skip_operator("(")) {
    ExprPtr inner = parse_tuple({.parenthesised = true});
    expect_operator(")");
    return inner;
  }
  if (at_operator("[")) return parse_list();
  if (at_operator("{")) return parse_dict();
  fail_here(fmt::format("unexpected '{}'", describe(token)));
}

ExprPtr ExpressionParser::parse_tuple(const TupleRules& rules) {
  const Nesting nesting(*this);
  auto tuple = make(ExprKind::kTuple, current().line);
  bool is_tuple = false;
  for (;;) {
    if (!tuple->children.empty()) expect_operator(",");
    if (current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
        at_operator(")") || (rules.end_name != nullptr && at_name(rules.end_name))) {
      break;
    }
    tuple->children.push_back(rules.targets ? parse_primary(rules.with_namespace)
                                            : parse_expression(rules.conditional));
    if (!at_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!tuple->children.empty()) return std::move(tuple->children[0]);
    if (!rules.parenthesised) fail_here(fmt::format("Expected an expression, got '{}'", describe(current())));
  }
  return finish(std::move(tuple));
}

ExprPtr ExpressionParser::parse_list() {
  auto node = make(ExprKind::kList, current().line);
  expect_operator("[");
  while (!at_operator("]")) {
    if (!node->children.empty()) expect_operator(",");
    if (at_operator("]")) break;
    node->children.push_back(parse_expression());
  }
  expect_operator("]");
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_dict() {
  auto node = make(ExprKind::kDict, current().line);
  expect_operator("{");
  while (!at_operator("}")) {
    if (!node->children.empty()) expect_operator(",");
    if (at_operator("}")) break;
    node->children.push_back(parse_expression());
    expect_operator(":");
    node->children.push_back(parse_expression());
  }
  expect_operator("}");
  return finish(std::move(node));
}

void ExpressionParser::mark_store(Expr& target) {
  target.store = true;
  for (const auto& child : target.children) mark_store(*child);
}

namespace {
bool can_assign(const Expr& target) {
  if (target.kind == ExprKind::kName || target.kind == ExprKind::kNamespaceRef) return true;
  if (target.kind != ExprKind::kTuple) return false;
  return std::all_of(target.children.begin(), target.children.end(),
                     [](const auto& c) { return can_assign(*c); });
}
}  // namespace

ExprPtr ExpressionParser::parse_target(const TupleRules& rules) {
  TupleRules target_rules = rules;
  target_rules.targets = true;
  ExprPtr target = parse_tuple(target_rules);
  if (!can_assign(*target)) fail_at(target->line, "can't assign to this expression");
  mark_store(*target);
  return target;
}

ExprPtr ExpressionParser::parse_name_target() {
  auto target = make(ExprKind::kName, current().line);
  target->name = expect_any_name();
  target->store = true;
  for (const char* word : {"true", "false", "none", "True", "False", "None"}) {
    if (target->name == word) fail_at(target->line, "can't assign to '{}'", word);
  }
  return target;
}

}  // namespace fathom::text::jinja
