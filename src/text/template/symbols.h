// The variables one scope knows (scope.h), gathered by walking its statements in order.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "text/template/ast.h"

namespace fathom::text::jinja {

// One function's frame while it is laid out.
struct FunctionLayout {
  explicit FunctionLayout(const FunctionLayout* outer) : depth(outer == nullptr ? 0 : outer->depth + 1) {}
  int depth;
  // Scopes at the same nesting level share the slot of a name: one is left before the next is entered.
  std::map<std::pair<int, std::string>, int> slots;
};

class Symbols {
 public:
  Symbols(Symbols* parent, FunctionLayout& function)
      : parent_(parent), function_(&function), level_(parent == nullptr ? 0 : parent->level_ + 1) {}

  struct Ref {
    int depth = 0;  // of the function that owns it
    int slot = -1;
  };
  // Null when the name was never seen here or outside.
  const Ref* find(const std::string& name) const;
  FunctionLayout& function() const { return *function_; }

  void load(const std::string& name);
  void store(const std::string& name);
  Ref declare_parameter(const std::string& name);

  // Gathers the names of statements that run in this scope; the insides of nested scopes are theirs.
  void visit(const Block& block);
  void visit(const Stmt& statement);
  void visit(const Expr& expr, bool targets_are_parameters = false);

  // The loads in the order they were found.
  Scope scope() const;

 private:
  using Action = ScopeLoad::Action;
  Ref define(const std::string& name, Action action, const Ref* alias = nullptr);
  void merge_branches(const std::vector<Symbols>& branches);
  void set_load(const ScopeLoad& load);

  Symbols* parent_;
  FunctionLayout* function_;
  int level_;
  std::map<std::string, Ref> refs_;
  std::vector<ScopeLoad> loads_;
  std::set<std::string> stores_;
};

}  // namespace fathom::text::jinja
