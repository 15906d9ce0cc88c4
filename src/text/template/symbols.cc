#include "text/template/symbols.h"

namespace fathom::text::jinja {

const Symbols::Ref* Symbols::find(const std::string& name) const {
  for (const Symbols* scope = this; scope != nullptr; scope = scope->parent_) {
    if (const auto it = scope->refs_.find(name); it != scope->refs_.end()) return &it->second;
  }
  return nullptr;
}

void Symbols::set_load(const ScopeLoad& load) {
  for (ScopeLoad& existing : loads_) {
    if (existing.slot == load.slot) {
      existing = load;
      return;
    }
  }
  loads_.push_back(load);
}

Symbols::Ref Symbols::define(const std::string& name, Action action, const Ref* alias) {
  const int next = static_cast<int>(function_->slots.size());
  const int slot = function_->slots.emplace(std::make_pair(level_, name), next).first->second;
  ScopeLoad load{.action = action, .slot = slot, .alias = {}, .name = name};
  if (alias != nullptr) load.alias = {function_->depth - alias->depth, alias->slot};
  set_load(load);
  return refs_[name] = {function_->depth, slot};
}

void Symbols::load(const std::string& name) {
  if (find(name) == nullptr) define(name, Action::kResolve);
}

void Symbols::store(const std::string& name) {
  stores_.insert(name);
  if (refs_.count(name) != 0) return;
  const Ref* outer = parent_ == nullptr ? nullptr : parent_->find(name);
  define(name, outer != nullptr ? Action::kAlias : Action::kClear, outer);
}

Symbols::Ref Symbols::declare_parameter(const std::string& name) {
  stores_.insert(name);
  return define(name, Action::kParameter);
}

void Symbols::merge_branches(const std::vector<Symbols>& branches) {
  std::set<std::string> stored;
  for (const Symbols& branch : branches) {
    for (const std::string& name : branch.stores_) {
      if (stores_.count(name) == 0) stored.insert(name);
    }
  }
  for (const Symbols& branch : branches) {
    for (const auto& [name, ref] : branch.refs_) refs_[name] = ref;
    for (const ScopeLoad& load : branch.loads_) set_load(load);
    stores_.insert(branch.stores_.begin(), branch.stores_.end());
  }
  // What only some branches set keeps, in the others, the value from outside.
  for (const std::string& name : stored) {
    const Ref* outer = parent_ == nullptr ? nullptr : parent_->find(name);
    define(name, outer != nullptr ? Action::kAlias : Action::kResolve, outer);
  }
}

void Symbols::visit(const Block& block) {
  for (const auto& statement : block) visit(*statement);
}

void Symbols::visit(const Stmt& statement) {
  switch (statement.kind) {
    case StmtKind::kOutput:
      for (const auto& expr : statement.exprs) visit(*expr);
      break;
    case StmtKind::kIf: {
      visit(*statement.expr);
      std::vector<Symbols> branches{*this, *this};
      branches[0].visit(statement.body);
      branches[1].visit(statement.else_body);
      merge_branches(branches);
      break;
    }
    case StmtKind::kFor:
    case StmtKind::kCallBlock:
    case StmtKind::kFilterBlock:
      visit(*statement.expr);
      break;
    case StmtKind::kSet:
      visit(*statement.expr);
      visit(*statement.target);
      break;
    case StmtKind::kSetBlock:
      visit(*statement.target);
      break;
    case StmtKind::kMacro:
      store(statement.name);
      break;
    case StmtKind::kWith:
      for (const auto& value : statement.defaults) visit(*value);
      break;
    case StmtKind::kText:
    case StmtKind::kGeneration:
    case StmtKind::kBreak:
    case StmtKind::kContinue:
      break;
  }
}

void Symbols::visit(const Expr& expr, bool targets_are_parameters) {
  if (expr.kind == ExprKind::kName) {
    if (targets_are_parameters || expr.parameter) {
      declare_parameter(expr.name);
    } else if (expr.store) {
      store(expr.name);
    } else {
      load(expr.name);
    }
  } else if (expr.kind == ExprKind::kNamespaceRef) {
    load(expr.name);
  }
  for_each_child(expr, [&](const Expr& child) { visit(child, targets_are_parameters); });
}

Scope Symbols::scope() const {
  return loads_;
}

}  // namespace fathom::text::jinja
