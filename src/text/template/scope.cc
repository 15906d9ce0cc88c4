#include "text/template/scope.h"

#include <set>

#include "text/template/filters.h"
#include "text/template/jinja_tests.h"
#include "text/template/symbols.h"

namespace fathom::text::jinja {
namespace {

void find_reads(const Expr& expr, std::set<std::string>& wanted, std::set<std::string>& found) {
  if (expr.kind == ExprKind::kName && wanted.count(expr.name) != 0) {
    if (expr.store) {
      wanted.erase(expr.name);
    } else {
      found.insert(expr.name);
    }
  }
  for_each_child(expr, [&](const Expr& child) { find_reads(child, wanted, found); });
}

void find_reads(const Block& block, std::set<std::string>& wanted, std::set<std::string>& found) {
  for (const auto& statement : block) {
    const auto visit = [&](const ExprPtr& expr) {
      if (expr != nullptr) find_reads(*expr, wanted, found);
    };
    // The right of {% set %} is read before its left is written.
    if (statement->kind == StmtKind::kSet || statement->kind == StmtKind::kIf) visit(statement->expr);
    visit(statement->target);
    if (statement->kind != StmtKind::kSet && statement->kind != StmtKind::kIf) visit(statement->expr);
    for (const auto& expr : statement->exprs) visit(expr);
    for (const auto& expr : statement->defaults) visit(expr);
    find_reads(statement->body, wanted, found);
    find_reads(statement->else_body, wanted, found);
    visit(statement->test);
  }
}

// Which of `names` a body reads before anything in it has set them.
std::set<std::string> undeclared(const Block& block, std::set<std::string> names) {
  std::set<std::string> found;
  find_reads(block, names, found);
  return found;
}

bool stores_loop(const Expr& expr) {
  bool found = expr.kind == ExprKind::kName && expr.store && expr.name == "loop";
  for_each_child(expr, [&](const Expr& child) { found = found || stores_loop(child); });
  return found;
}
bool stores_loop(const Stmt& statement) {
  if (statement.target != nullptr && stores_loop(*statement.target)) return true;
  for (const Block* block : {&statement.body, &statement.else_body}) {
    for (const auto& inner : *block) {
      if (stores_loop(*inner)) return true;
    }
  }
  return false;
}

class Resolver {
 public:
  void run(Program& program) {
    FunctionLayout layout(nullptr);
    Symbols symbols(nullptr, layout);
    symbols.visit(program.body);
    block(program.body, symbols, false);
    program.scope = symbols.scope();
    program.function.slots = static_cast<int>(layout.slots.size());
  }

 private:
  static VariableRef ref(const std::string& name, const Symbols& symbols, int line) {
    const Symbols::Ref* found = symbols.find(name);
    if (found == nullptr) fail_at(line, "the variable '{}' cannot be used here", name);
    return {symbols.function().depth - found->depth, found->slot};
  }

  // `soft`: inside an if, where a missing filter or test is an error only when it is reached.
  void block(Block& statements, Symbols& symbols, bool soft) {
    for (const auto& s : statements) statement(*s, symbols, soft);
  }

  void statement(Stmt& s, Symbols& symbols, bool soft) {
    switch (s.kind) {
      case StmtKind::kText:
      case StmtKind::kBreak:
      case StmtKind::kContinue:
        break;
      case StmtKind::kOutput:
        for (const auto& e : s.exprs) expr(*e, symbols, soft);
        break;
      case StmtKind::kIf:
        expr(*s.expr, symbols, true);
        block(s.body, symbols, true);
        block(s.else_body, symbols, true);
        break;
      case StmtKind::kFor:
        loop(s, symbols, soft);
        break;
      case StmtKind::kSet:
        expr(*s.expr, symbols, soft);
        expr(*s.target, symbols, soft);
        break;
      case StmtKind::kSetBlock: {
        Symbols inner(&symbols, symbols.function());
        inner.visit(s.body);
        block(s.body, inner, false);
        expr(*s.target, symbols, soft);
        if (s.expr != nullptr) expr(*s.expr, inner, false);
        s.scope = inner.scope();
        break;
      }
      case StmtKind::kMacro:
        function(s, symbols);
        s.variable = ref(s.name, symbols, s.line);
        break;
      case StmtKind::kGeneration:
        function(s, symbols);
        break;
      case StmtKind::kCallBlock:
        function(s, symbols);
        expr(*s.expr, symbols, soft);
        break;
      case StmtKind::kFilterBlock: {
        Symbols inner(&symbols, symbols.function());
        inner.visit(s.body);
        inner.visit(*s.expr);
        block(s.body, inner, false);
        expr(*s.expr, inner, false);
        s.scope = inner.scope();
        break;
      }
      case StmtKind::kWith: {
        Symbols inner(&symbols, symbols.function());
        for (const auto& target : s.exprs) inner.visit(*target, true);
        inner.visit(s.body);
        for (size_t i = 0; i < s.exprs.size(); ++i) {
          expr(*s.exprs[i], inner, false);
          expr(*s.defaults[i], symbols, soft);
        }
        block(s.body, inner, false);
        s.scope = inner.scope();
        break;
      }
    }
  }

  void loop(Stmt& s, Symbols& symbols, bool soft) {
    if (stores_loop(s)) fail_at(s.line, "Can't assign to special loop variable in for-loop target");
    FunctionLayout own_layout(&symbols.function());
    FunctionLayout& layout = s.recursive ? own_layout : symbols.function();
    Symbols body(&symbols, layout);
    if (s.recursive || !undeclared(s.body, {"loop"}).empty())
      s.loop_slot = body.declare_parameter("loop").slot;
    body.visit(*s.target, true);
    body.visit(s.body);

    expr(*s.expr, symbols, soft);
    if (s.test != nullptr) {
      FunctionLayout test_layout(&symbols.function());
      Symbols test(&symbols, test_layout);
      test.visit(*s.target, true);
      test.visit(*s.test);
      expr(*s.test, test, false);
      s.test_scope = test.scope();
      s.test_function.slots = static_cast<int>(test_layout.slots.size());
      parameter_slots(*s.target, test, s.test_function.parameters);
    }
    expr(*s.target, body, false);
    block(s.body, body, false);
    s.scope = body.scope();

    Symbols otherwise(&symbols, layout);
    otherwise.visit(s.else_body);
    block(s.else_body, otherwise, false);
    s.else_scope = otherwise.scope();
    if (s.recursive) s.function.slots = static_cast<int>(layout.slots.size());
  }

  // The slots of the names of a target, from left to right.
  static void parameter_slots(const Expr& target, const Symbols& symbols, std::vector<int>& slots) {
    if (target.kind == ExprKind::kName) slots.push_back(symbols.find(target.name)->slot);
    for_each_child(target, [&](const Expr& child) { parameter_slots(child, symbols, slots); });
  }

  void function(Stmt& s, Symbols& symbols) {
    FunctionLayout layout(&symbols.function());
    Symbols inner(&symbols, layout);
    FunctionPlan& plan = s.function;
    const auto gather = [&] {
      for (const auto& parameter : s.exprs) inner.visit(*parameter);
      for (const auto& value : s.defaults) inner.visit(*value);
      inner.visit(s.body);
    };
    gather();
    std::set<std::string> named;
    for (size_t i = 0; i < s.exprs.size(); ++i) {
      const std::string& name = s.exprs[i]->name;
      named.insert(name);
      plan.parameter_names.push_back(name);
      plan.parameters.push_back(inner.find(name)->slot);
      if (name == "caller") plan.explicit_caller = true;
    }
    const auto special = undeclared(s.body, {"caller", "kwargs", "varargs"});
    if (special.count("caller") != 0) {
      if (plan.explicit_caller) {
        for (size_t i = 0; i + s.defaults.size() < s.exprs.size(); ++i) {
          if (s.exprs[i]->name == "caller") {
            fail_at(s.line, "the special \"caller\" argument must be omitted or be given a default");
          }
        }
      } else {
        plan.caller_slot = inner.declare_parameter("caller").slot;
      }
    }
    if (special.count("kwargs") != 0 && named.count("kwargs") == 0) {
      plan.kwargs_slot = inner.declare_parameter("kwargs").slot;
    }
    if (special.count("varargs") != 0 && named.count("varargs") == 0) {
      plan.varargs_slot = inner.declare_parameter("varargs").slot;
    }
    gather();
    for (const auto& value : s.defaults) expr(*value, inner, false);
    block(s.body, inner, false);
    s.scope = inner.scope();
    plan.slots = static_cast<int>(layout.slots.size());
  }

  void expr(Expr& e, Symbols& symbols, bool soft) {
    switch (e.kind) {
      case ExprKind::kName:
      case ExprKind::kNamespaceRef:
        e.variable = ref(e.name, symbols, e.line);
        break;
      case ExprKind::kFilter:
        e.filter = find_filter(e.attribute);
        if (!soft && e.filter == nullptr) fail_at(e.line, "No filter named '{}'.", e.attribute);
        break;
      case ExprKind::kTest:
        e.test = find_test(e.attribute);
        if (!soft && e.test == nullptr) fail_at(e.line, "No test named '{}'.", e.attribute);
        break;
      case ExprKind::kConditional:
        soft = true;
        break;
      default:
        break;
    }
    for_each_child(e, [&](const Expr& child) { expr(const_cast<Expr&>(child), symbols, soft); });
  }
};

}  // namespace

void resolve_scopes(Program& program) {
  Resolver().run(program);
}

}  // namespace fathom::text::jinja
