// What may follow a value in an expression: subscripts, calls, filters and tests.
#include <algorithm>

#include "text/template/expression_parser.h"

namespace fathom::text::jinja {

ExprPtr ExpressionParser::parse_postfix(ExprPtr node) {
  for (;;) {
    if (at_operator(".") || at_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (at_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_filter_expression(ExprPtr node) {
  for (;;) {
    if (at_operator("|")) {
      node = parse_filters(std::move(node), false);
    } else if (at_name("is")) {
      node = parse_test(std::move(node));
    } else if (at_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr node) {
  const int line = current().line;
  if (take().text == "[") return parse_subscripted(std::move(node), line);
  const Token token = take();
  if (token.kind == TokenKind::kName) {
    auto access = make(ExprKind::kAttribute, line);
    access->attribute = token.text;
    access->attribute_value = Value::constant(token.text);
    access->children.push_back(std::move(node));
    return finish(std::move(access));
  }
  if (token.kind != TokenKind::kInteger) fail_at(token.line, "expected name or number");
  auto index = make(ExprKind::kConstant, token.line);
  index->constant = Value::integer(token.integer);
  return pair(ExprKind::kItem, line, std::move(node), std::move(index));
}

ExprPtr ExpressionParser::parse_subscripted(ExprPtr node, int line) {
  const auto at_part_end = [&] { return at_operator(":") || at_operator("]") || at_operator(","); };
  auto tuple = make(ExprKind::kTuple, line);
  while (!at_operator("]")) {
    if (!tuple->children.empty()) expect_operator(",");
    ExprPtr start = at_operator(":") ? nullptr : parse_expression();
    if (!at_operator(":")) {
      if (start == nullptr) fail_here("expected subscript expression");
      tuple->children.push_back(std::move(start));
      continue;
    }
    take();
    auto slice = make(ExprKind::kSlice, line);
    slice->children.push_back(nullptr);
    slice->children.push_back(std::move(start));
    slice->children.push_back(at_part_end() ? nullptr : parse_expression());
    slice->children.push_back(skip_operator(":") && !at_part_end() ? parse_expression() : nullptr);
    if (!tuple->children.empty() || !at_operator("]")) fail_here("a slice must stand alone in its brackets");
    expect_operator("]");
    slice->children[0] = std::move(node);
    return finish(std::move(slice));
  }
  expect_operator("]");
  ExprPtr index = tuple->children.size() == 1 ? std::move(tuple->children[0]) : finish(std::move(tuple));
  return pair(ExprKind::kItem, line, std::move(node), std::move(index));
}

void ExpressionParser::parse_arguments(Expr& call) {
  const int line = current().line;
  expect_operator("(");
  bool comma = false;
  const auto ensure = [&](bool valid) {
    if (!valid) fail_at(line, "invalid syntax for function call expression");
  };
  while (!at_operator(")")) {
    if (comma) {
      expect_operator(",");
      if (at_operator(")")) break;
    }
    comma = true;
    if (at_operator("*")) {
      ensure(call.star == nullptr && call.double_star == nullptr);
      take();
      call.star = parse_expression();
    } else if (at_operator("**")) {
      ensure(call.double_star == nullptr);
      take();
      call.double_star = parse_expression();
    } else if (current().kind == TokenKind::kName && look().is_operator("=")) {
      ensure(call.double_star == nullptr);
      const std::string name = take().text;
      take();
      for (const auto& [other, value] : call.named) {
        if (other == name) fail_at(line, "keyword argument repeated: {}", name);
      }
      call.named.emplace_back(name, parse_expression());
    } else {
      ensure(call.star == nullptr && call.double_star == nullptr && call.named.empty());
      call.children.push_back(parse_expression());
    }
  }
  expect_operator(")");
}

ExprPtr ExpressionParser::parse_call(ExprPtr node) {
  auto call = make(ExprKind::kCall, current().line);
  call->children.push_back(std::move(node));
  parse_arguments(*call);
  return finish(std::move(call));
}

ExprPtr ExpressionParser::parse_filters(ExprPtr node, bool start_inline) {
  while (at_operator("|") || start_inline) {
    if (!start_inline) take();
    auto filter = make(ExprKind::kFilter, current().line);
    filter->attribute = expect_any_name();
    while (skip_operator(".")) filter->attribute += "." + expect_any_name();
    filter->children.push_back(std::move(node));
    if (at_operator("(")) parse_arguments(*filter);
    node = finish(std::move(filter));
    start_inline = false;
  }
  return node;
}

ExprPtr ExpressionParser::parse_test(ExprPtr node) {
  const Nesting nesting(*this);
  auto test = make(ExprKind::kTest, take().line);
  const bool negated = skip_name("not");
  test->attribute = expect_any_name();
  while (skip_operator(".")) test->attribute += "." + expect_any_name();
  test->children.push_back(std::move(node));
  const Token& next = current();
  const bool starts_value = next.kind == TokenKind::kName || next.kind == TokenKind::kString ||
                            next.kind == TokenKind::kInteger || next.kind == TokenKind::kFloat ||
                            next.is_operator("[") || next.is_operator("{");
  if (next.is_operator("(")) {
    parse_arguments(*test);
  } else if (starts_value && !next.is_name("else") && !next.is_name("or") && !next.is_name("and")) {
    if (next.is_name("is")) fail_here("You cannot chain multiple tests with is");
    test->children.push_back(parse_postfix(parse_primary(false)));
  }
  const int line = test->line;
  ExprPtr result = finish(std::move(test));
  if (!negated) return result;
  auto inverse = make(ExprKind::kNot, line);
  inverse->children.push_back(std::move(result));
  return finish(std::move(inverse));
}

}  // namespace fathom::text::jinja
