#include "text/template/jinja_tests.h"

#include <unordered_map>

#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/printing.h"

namespace fathom::text::jinja {
namespace {

void no_arguments(const Arguments& arguments) {
  bind("test", arguments, {});
}

template <Kind kKind>
bool is_kind(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return value.is(kKind);
}

template <CompareOp kOp>
bool compares(Interpreter& run, const Value& value, const Arguments& arguments) {
  if (!arguments.named.empty()) fail("this test takes no keyword arguments");
  const ValueList other = bind("test", arguments, {"other"}, 1);
  return compare(run.heap(), kOp, value, other[0]);
}

bool is_contained(Interpreter& run, const Value& value, const Arguments& arguments) {
  return contains(run.heap(), bind("in", arguments, {"seq"}, 1)[0], value);
}

bool defined(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return !value.is_undefined();
}

template <int64_t kRest>
bool has_parity(Interpreter& run, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return equals(run.heap(), binary(run.heap(), BinaryOp::kMod, value, Value::integer(2)),
                Value::integer(kRest));
}

bool divisible(Interpreter& run, const Value& value, const Arguments& arguments) {
  const ValueList given = bind("divisibleby", arguments, {"num"}, 1);
  return equals(run.heap(), binary(run.heap(), BinaryOp::kMod, value, given[0]), Value::integer(0));
}

template <bool kWanted>
bool is_bool(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return value.is(Kind::kBool) && (value.as_int() != 0) == kWanted;
}

bool is_integer(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return value.is(Kind::kInt) || value.is(Kind::kBigInt);
}

bool is_number(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  double number = 0;
  return to_double(value, number);
}

bool is_sequence(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return length_of(value) >= 0 && !value.is(Kind::kDictView);
}

bool is_iterable_test(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return is_iterable(value) || value.is(Kind::kLoop);
}

bool is_callable(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return value.is(Kind::kFunction) || value.is(Kind::kMacro) || value.is(Kind::kLoop) || value.is_undefined();
}

template <bool kUpper>
bool has_case(Interpreter& run, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  const Value text = run.heap().string(str(run.heap(), value));
  return truthy(run.call(run.attribute(text, kUpper ? "isupper" : "islower"), {}));
}

bool is_escaped(Interpreter&, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  return value.is_string() && value.as<StringObject>().markup;
}

bool is_same(Interpreter&, const Value& value, const Arguments& arguments) {
  return identical(value, bind("sameas", arguments, {"other"}, 1)[0]);
}

template <bool kFilter>
bool is_known(Interpreter& run, const Value& value, const Arguments& arguments) {
  no_arguments(arguments);
  hash_of(run.heap(), value);
  if (!value.is_string()) return false;
  return kFilter ? find_filter(value.text()) != nullptr : find_test(value.text()) != nullptr;
}

}  // namespace

TestFunction find_test(std::string_view name) {
  static const std::unordered_map<std::string_view, TestFunction> kTable = {
      {"!=", compares<CompareOp::kNe>},
      {"<", compares<CompareOp::kLt>},
      {"<=", compares<CompareOp::kLe>},
      {"==", compares<CompareOp::kEq>},
      {">", compares<CompareOp::kGt>},
      {">=", compares<CompareOp::kGe>},
      {"boolean", is_kind<Kind::kBool>},
      {"callable", is_callable},
      {"defined", defined},
      {"divisibleby", divisible},
      {"eq", compares<CompareOp::kEq>},
      {"equalto", compares<CompareOp::kEq>},
      {"escaped", is_escaped},
      {"even", has_parity<0>},
      {"false", is_bool<false>},
      {"filter", is_known<true>},
      {"float", is_kind<Kind::kFloat>},
      {"ge", compares<CompareOp::kGe>},
      {"greaterthan", compares<CompareOp::kGt>},
      {"gt", compares<CompareOp::kGt>},
      {"in", is_contained},
      {"integer", is_integer},
      {"iterable", is_iterable_test},
      {"le", compares<CompareOp::kLe>},
      {"lessthan", compares<CompareOp::kLt>},
      {"lower", has_case<false>},
      {"lt", compares<CompareOp::kLt>},
      {"mapping", is_kind<Kind::kDict>},
      {"ne", compares<CompareOp::kNe>},
      {"none", is_kind<Kind::kNone>},
      {"number", is_number},
      {"odd", has_parity<1>},
      {"sameas", is_same},
      {"sequence", is_sequence},
      {"string", is_kind<Kind::kString>},
      {"test", is_known<false>},
      {"true", is_bool<true>},
      {"undefined", is_kind<Kind::kUndefined>},
      {"upper", has_case<true>},
  };
  const auto it = kTable.find(name);
  return it == kTable.end() ? nullptr : it->second;
}

}  // namespace fathom::text::jinja
