#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/jinja_tests.h"
#include "text/template/printing.h"

namespace fathom::text::jinja {

// Kept small: this is what nests when expressions do.
Value Interpreter::eval(const Expr& expr) {
  const Heap::Depth depth(heap_);
  heap_.step();
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return eval_name(expr);
    case ExprKind::kNamespaceRef:
      break;
    case ExprKind::kList:
    case ExprKind::kTuple:
      return eval_items(expr);
    case ExprKind::kDict:
      return eval_dict(expr);
    case ExprKind::kAttribute:
      return attribute(eval(*expr.children[0]), expr.attribute);
    case ExprKind::kItem: {
      const Value object = eval(*expr.children[0]);
      return item(object, eval(*expr.children[1]));
    }
    case ExprKind::kSlice:
      return eval_slice(expr);
    case ExprKind::kCall:
      return eval_call(expr);
    case ExprKind::kFilter:
      return eval_filter(expr);
    case ExprKind::kTest:
      return eval_test(expr);
    case ExprKind::kBinary:
      return eval_binary(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return eval_logic(expr);
    case ExprKind::kNot:
    case ExprKind::kNegate:
    case ExprKind::kPositive:
      return eval_unary(expr);
    case ExprKind::kConcat:
      return eval_concat(expr);
    case ExprKind::kCompare:
      return eval_compare(expr);
    case ExprKind::kConditional:
      return eval_conditional(expr);
  }
  fail("this expression can only be assigned to");
}

[[gnu::noinline]] Value Interpreter::eval_name(const Expr& expr) {
  const Value& value = variable(expr.variable);
  if (!value.is_missing()) return value;
  return heap_.undefined("'" + expr.name + "' is undefined");
}

[[gnu::noinline]] Value Interpreter::eval_items(const Expr& expr) {
  ValueList items;
  items.reserve(expr.children.size());
  for (const auto& child : expr.children) items.push_back(eval(*child));
  return expr.kind == ExprKind::kList ? heap_.list(std::move(items)) : heap_.tuple(std::move(items));
}

[[gnu::noinline]] Value Interpreter::eval_dict(const Expr& expr) {
  auto dict = heap_.dict();
  for (size_t i = 0; i < expr.children.size(); i += 2) {
    const Value key = eval(*expr.children[i]);
    dict->set(key, eval(*expr.children[i + 1]));
  }
  return dict_value(std::move(dict));
}

[[gnu::noinline]] Value Interpreter::eval_slice(const Expr& expr) {
  const Value object = eval(*expr.children[0]);
  Value parts[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expr.children[i + 1] != nullptr) parts[i] = eval(*expr.children[i + 1]);
  }
  line_ = expr.line;
  return slice(heap_, object, parts[0], parts[1], parts[2]);
}

[[gnu::noinline]] Arguments Interpreter::eval_arguments(const Expr& expr) {
  Arguments arguments;
  arguments.positional.reserve(expr.children.size());
  for (size_t i = 1; i < expr.children.size(); ++i) arguments.positional.push_back(eval(*expr.children[i]));
  for (const auto& [name, value] : expr.named) arguments.named.emplace_back(name, eval(*value));
  if (expr.star != nullptr) {
    for (Value& value : to_list(heap_, eval(*expr.star))) arguments.positional.push_back(std::move(value));
  }
  if (expr.double_star != nullptr) {
    const Value more = eval(*expr.double_star);
    if (!more.is(Kind::kDict)) fail("argument after ** must be a mapping, not {}", type_name(more));
    for (const auto& [key, value] : more.as<DictObject>().entries) {
      heap_.step(1 + arguments.named.size());
      if (!key.is_string()) fail("keywords must be strings");
      if (arguments.find(key.text()) != nullptr)
        fail("got multiple values for keyword argument '{}'", key.text());
      arguments.named.emplace_back(key.text(), value);
    }
  }
  return arguments;
}

[[gnu::noinline]] Value Interpreter::eval_call(const Expr& expr, const Value* caller) {
  const Value callee = eval(*expr.children[0]);
  Arguments arguments = eval_arguments(expr);
  if (caller != nullptr) {
    if (arguments.find("caller") != nullptr) fail("got multiple values for keyword argument 'caller'");
    arguments.named.emplace_back("caller", *caller);
  }
  line_ = expr.line;
  return call(callee, arguments);
}

[[gnu::noinline]] Value Interpreter::eval_filter(const Expr& expr, const Value* input) {
  const Value value = input != nullptr              ? *input
                      : expr.children[0] != nullptr ? eval(*expr.children[0])
                                                    : heap_.string("");
  const Arguments arguments = eval_arguments(expr);
  line_ = expr.line;
  if (expr.filter == nullptr) fail("No filter named '{}'.", expr.attribute);
  return expr.filter(*this, value, arguments);
}

[[gnu::noinline]] Value Interpreter::eval_test(const Expr& expr) {
  const Value value = eval(*expr.children[0]);
  const Arguments arguments = eval_arguments(expr);
  line_ = expr.line;
  if (expr.test == nullptr) fail("No test named '{}'.", expr.attribute);
  return Value::boolean(expr.test(*this, value, arguments));
}

[[gnu::noinline]] Value Interpreter::eval_binary(const Expr& expr) {
  const Value left = eval(*expr.children[0]);
  const Value right = eval(*expr.children[1]);
  line_ = expr.line;
  return binary(heap_, expr.binary, left, right);
}

[[gnu::noinline]] Value Interpreter::eval_logic(const Expr& expr) {
  Value left = eval(*expr.children[0]);
  if (truthy(left) == (expr.kind == ExprKind::kOr)) return left;
  return eval(*expr.children[1]);
}

[[gnu::noinline]] Value Interpreter::eval_unary(const Expr& expr) {
  const Value value = eval(*expr.children[0]);
  line_ = expr.line;
  if (expr.kind == ExprKind::kNot) return Value::boolean(!truthy(value));
  return expr.kind == ExprKind::kNegate ? negate(value) : positive(value);
}

[[gnu::noinline]] Value Interpreter::eval_concat(const Expr& expr) {
  ValueList parts;
  parts.reserve(expr.children.size());
  for (const auto& child : expr.children) parts.push_back(eval(*child));
  std::string text;
  for (const Value& part : parts) append_str(heap_, text, part);
  return heap_.string(std::move(text));
}

[[gnu::noinline]] Value Interpreter::eval_compare(const Expr& expr) {
  Value left = eval(*expr.children[0]);
  for (size_t i = 0; i < expr.compares.size(); ++i) {
    Value right = eval(*expr.children[i + 1]);
    line_ = expr.line;
    if (!compare(heap_, expr.compares[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

[[gnu::noinline]] Value Interpreter::eval_conditional(const Expr& expr) {
  if (truthy(eval(*expr.children[0]))) return eval(*expr.children[1]);
  if (expr.children[2] != nullptr) return eval(*expr.children[2]);
  return heap_.undefined(fmt::format(
      "the inline if-expression on line {} evaluated to false and no else section was defined.", expr.line));
}

Value Interpreter::apply_filter(const Value& name, const Value& input, const Arguments& arguments) {
  const FilterFunction filter = name.is_string() ? find_filter(name.text()) : nullptr;
  if (filter == nullptr) fail("No filter named {}.", repr(heap_, name));
  heap_.step();
  return filter(*this, input, arguments);
}

bool Interpreter::apply_test(const Value& name, const Value& input, const Arguments& arguments) {
  const TestFunction test = name.is_string() ? find_test(name.text()) : nullptr;
  if (test == nullptr) fail("No test named {}.", repr(heap_, name));
  heap_.step();
  return test(*this, input, arguments);
}

}  // namespace fathom::text::jinja
