// The syntax tree of a template. The parser makes it, the resolver (scope.h) fills in where variables live,
// and then it never changes: renders on many threads share it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template/operators.h"
#include "text/template/value.h"

namespace fathom::text::jinja {

struct Arguments;
struct Expr;
struct Stmt;
class Interpreter;
using FilterFunction = Value (*)(Interpreter& interpreter, const Value& input, const Arguments& arguments);
using TestFunction = bool (*)(Interpreter& interpreter, const Value& input, const Arguments& arguments);
using ExprPtr = std::unique_ptr<Expr>;
using StmtPtr = std::unique_ptr<Stmt>;
using Block = std::vector<StmtPtr>;

// A variable: slot `slot` of the frame `hops` functions out from the running one.
struct VariableRef {
  int hops = -1;
  int slot = -1;
};

enum class ExprKind : uint8_t {
  kConstant,      // constant
  kName,          // name: read, or written when `store`
  kNamespaceRef,  // name.attribute as a target of {% set %}
  kList,          // children
  kTuple,         // children
  kDict,          // children: key, value, key, value, ...
  kAttribute,     // children[0].attribute
  kItem,          // children[0][children[1]]
  kSlice,         // children[0][children[1]:children[2]:children[3]]; parts may be null
  kCall,          // children[0](children[1..], named, *star, **double_star)
  kFilter,        // children[0] | attribute(children[1..], ...); children[0] is null in filter blocks
  kTest,          // children[0] is attribute(children[1..], ...)
  kBinary,        // children[0] `binary` children[1]
  kAnd,
  kOr,
  kNot,
  kNegate,
  kPositive,
  kConcat,       // children, joined as text
  kCompare,      // children[0] compares[0] children[1] compares[1] children[2] ...
  kConditional,  // children[1] if children[0] else children[2]; the last may be null
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  int line = 0;
  int depth = 1;  // of the tree below, itself included
  bool store = false;
  bool parameter = false;
  std::string name;
  std::string attribute;
  Value constant;
  Value attribute_value;  // `attribute` as a value
  VariableRef variable;
  FilterFunction filter = nullptr;  // null: of that name there is none, which fails when it is reached
  TestFunction test = nullptr;
  BinaryOp binary = BinaryOp::kAdd;
  std::vector<CompareOp> compares;
  std::vector<ExprPtr> children;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;
  ExprPtr double_star;
};

// What entering a scope does to one variable.
struct ScopeLoad {
  enum class Action : uint8_t { kParameter, kResolve, kAlias, kClear } action = Action::kParameter;
  int slot = -1;
  VariableRef alias;  // kAlias: copy from here
  std::string name;   // kResolve: look up among the variables of the render
};
using Scope = std::vector<ScopeLoad>;

// A piece of template that runs with variables of its own: a macro, the body of a call block, a loop filter.
struct FunctionPlan {
  int slots = 0;
  std::vector<int> parameters;  // slots
  std::vector<std::string> parameter_names;
  int caller_slot = -1;  // of the names a macro may use without declaring them; -1: not used
  int kwargs_slot = -1;
  int varargs_slot = -1;
  bool explicit_caller = false;
};

enum class StmtKind : uint8_t {
  kText,         // text
  kOutput,       // exprs
  kIf,           // expr, body, else_body (an elif is a kIf alone in else_body)
  kFor,          // for target in expr if test; body, else_body
  kSet,          // set target = expr
  kSetBlock,     // set target | filter; body
  kMacro,        // name, parameters (exprs), defaults; body
  kCallBlock,    // expr is the call; parameters, defaults, body
  kGeneration,   // body, as if called by a call block
  kFilterBlock,  // expr is the filter; body
  kWith,         // targets (exprs) and values (defaults); body
  kBreak,
  kContinue,
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int line = 0;
  std::string text;  // kText
  std::string name;
  ExprPtr target;
  ExprPtr expr;
  ExprPtr test;
  std::vector<ExprPtr> exprs;
  std::vector<ExprPtr> defaults;
  Block body;
  Block else_body;
  bool recursive = false;

  VariableRef variable;        // kMacro: where it is stored
  Scope scope;                 // entered for the body (kFor: for each item)
  Scope else_scope;            // kFor
  Scope test_scope;            // kFor with a test
  int loop_slot = -1;          // kFor: of the variable `loop`, when the body uses it
  FunctionPlan function;       // of the body, where that is a function
  FunctionPlan test_function;  // kFor with a test
};

struct Program {
  Block body;
  Scope scope;
  FunctionPlan function;
};

// The expressions directly below one, null ones left out.
template <class Visit>
void for_each_child(const Expr& expr, Visit visit) {
  for (const auto& child : expr.children) {
    if (child != nullptr) visit(*child);
  }
  for (const auto& [name, value] : expr.named) visit(*value);
  if (expr.star != nullptr) visit(*expr.star);
  if (expr.double_star != nullptr) visit(*expr.double_star);
}

}  // namespace fathom::text::jinja
