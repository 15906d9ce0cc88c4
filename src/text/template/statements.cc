#include "text/template/interpreter.h"
#include "text/template/printing.h"

namespace fathom::text::jinja {

std::string Interpreter::run() {
  try {
    std::string text;
    out_ = &text;
    frame_ = make_frame(program_.function.slots, nullptr);
    enter(program_.scope);
    run_block(program_.body);
    out_ = nullptr;
    return text;
  } catch (Failure& failure) {
    if (failure.line == 0) failure.line = line_;
    throw;
  }
}

Interpreter::Capture::Capture(Interpreter& interpreter)
    : interpreter_(interpreter), outer_(interpreter.out_), charged_outside_(interpreter.charged_) {
  interpreter.out_ = &text_;
  interpreter.charged_ = 0;
}
Interpreter::Capture::~Capture() {
  interpreter_.heap_.shrink(interpreter_.charged_);
  interpreter_.charged_ = charged_outside_;
  interpreter_.out_ = outer_;
}
std::string Interpreter::Capture::take() {
  interpreter_.heap_.shrink(interpreter_.charged_);
  interpreter_.charged_ = 0;
  return std::move(text_);
}

void Interpreter::write(std::string_view text) {
  heap_.check_text(out_->size() + text.size());
  heap_.step_bytes(text.size());
  heap_.grow(text.size());
  charged_ += text.size();
  *out_ += text;
}

void Interpreter::write(const Value& value) {
  if (value.is_string()) {
    write(std::string_view(value.text()));
  } else {
    write(std::string_view(str(heap_, value)));
  }
}

std::shared_ptr<Frame> Interpreter::make_frame(int slots, std::shared_ptr<Frame> parent) {
  return std::make_shared<Frame>(&heap_, static_cast<size_t>(slots), std::move(parent));
}

Value& Interpreter::variable(const VariableRef& ref) {
  Frame* frame = frame_.get();
  for (int i = 0; i < ref.hops; ++i) frame = frame->parent.get();
  return frame->slots[static_cast<size_t>(ref.slot)];
}

void Interpreter::enter(const Scope& scope) {
  for (const ScopeLoad& load : scope) {
    Value& slot = frame_->slots[static_cast<size_t>(load.slot)];
    switch (load.action) {
      case ScopeLoad::Action::kParameter:
        break;
      case ScopeLoad::Action::kResolve:
        slot = resolve(load.name);
        break;
      case ScopeLoad::Action::kAlias:
        slot = variable(load.alias);
        break;
      case ScopeLoad::Action::kClear:
        slot = Value();
        break;
    }
  }
}

void Interpreter::leave(const Scope& scope) {
  for (const ScopeLoad& load : scope) frame_->slots[static_cast<size_t>(load.slot)] = Value();
}

void Interpreter::assign(const Expr& target, Value value) {
  switch (target.kind) {
    case ExprKind::kName:
      variable(target.variable) = std::move(value);
      return;
    case ExprKind::kNamespaceRef: {
      const Value object = variable(target.variable);
      if (!object.is(Kind::kNamespace)) fail("cannot assign attribute on non-namespace object");
      if (target.attribute.starts_with("_")) fail("namespace attributes must not start with an underscore");
      object.as<NamespaceObject>().attributes->set(target.attribute_value, std::move(value));
      return;
    }
    default:
      break;
  }
  const ValueList items = to_list(heap_, value);
  if (items.size() != target.children.size()) {
    fail("cannot unpack {} values into {} names", items.size(), target.children.size());
  }
  for (size_t i = 0; i < items.size(); ++i) assign(*target.children[i], items[i]);
}

Interpreter::Flow Interpreter::run_block(const Block& block) {
  for (const auto& statement : block) {
    const Flow flow = run_statement(*statement);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run_statement(const Stmt& statement) {
  const Heap::Depth depth(heap_);
  heap_.step();
  line_ = statement.line;
  switch (statement.kind) {
    case StmtKind::kText:
      write(std::string_view(statement.text));
      return Flow::kNormal;
    case StmtKind::kOutput:
      for (const auto& expr : statement.exprs) write(eval(*expr));
      return Flow::kNormal;
    case StmtKind::kIf:
      return run_if(statement);
    case StmtKind::kFor:
      return run_for(statement);
    case StmtKind::kSet:
      assign(*statement.target, eval(*statement.expr));
      return Flow::kNormal;
    case StmtKind::kSetBlock:
    case StmtKind::kFilterBlock:
      return run_captured(statement);
    case StmtKind::kMacro:
      variable(statement.variable) = Value(Kind::kMacro, std::make_shared<MacroObject>(statement, frame_));
      return Flow::kNormal;
    case StmtKind::kCallBlock:
    case StmtKind::kGeneration:
      run_call_block(statement);
      return Flow::kNormal;
    case StmtKind::kWith:
      return run_with(statement);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

[[gnu::noinline]] Interpreter::Flow Interpreter::run_if(const Stmt& statement) {
  return run_block(truthy(eval(*statement.expr)) ? statement.body : statement.else_body);
}

[[gnu::noinline]] Interpreter::Flow Interpreter::run_with(const Stmt& statement) {
  enter(statement.scope);
  for (size_t i = 0; i < statement.exprs.size(); ++i)
    assign(*statement.exprs[i], eval(*statement.defaults[i]));
  const Flow flow = run_block(statement.body);
  leave(statement.scope);
  return flow;
}

[[gnu::noinline]] Interpreter::Flow Interpreter::run_captured(const Stmt& statement) {
  enter(statement.scope);
  std::string text;
  {
    Capture capture(*this);
    // Leaving the loop around it, the block gives nothing.
    if (const Flow flow = run_block(statement.body); flow != Flow::kNormal) return flow;
    text = capture.take();
  }
  Value value = heap_.string(std::move(text));
  if (statement.expr != nullptr) {
    // The innermost of a chain of filters takes the text.
    const Expr* inner = statement.expr.get();
    std::vector<const Expr*> chain{inner};
    while (inner->children[0] != nullptr) chain.push_back(inner = inner->children[0].get());
    for (auto it = chain.rbegin(); it != chain.rend(); ++it) value = eval_filter(**it, &value);
  }
  if (statement.kind == StmtKind::kSetBlock) {
    assign(*statement.target, std::move(value));
  } else {
    write(value);
  }
  leave(statement.scope);
  return Flow::kNormal;
}

[[gnu::noinline]] void Interpreter::run_call_block(const Stmt& statement) {
  const Value caller(Kind::kMacro, std::make_shared<MacroObject>(statement, frame_));
  if (statement.kind == StmtKind::kGeneration) {
    write(call(caller, {}));
  } else {
    write(eval_call(*statement.expr, &caller));
  }
}

void Interpreter::bind_macro(const FunctionPlan& plan, const std::string& name, Arguments arguments,
                             Frame& frame) {
  const auto slot = [&](int i) -> Value& { return frame.slots[static_cast<size_t>(i)]; };
  const auto take_named = [&](const std::string& key) {
    for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it) {
      if (it->first != key) continue;
      Value value = std::move(it->second);
      arguments.named.erase(it);
      return value;
    }
    return Value();
  };
  const size_t declared = plan.parameters.size();
  for (size_t i = 0; i < declared; ++i) {
    slot(plan.parameters[i]) = i < arguments.positional.size() ? std::move(arguments.positional[i])
                                                               : take_named(plan.parameter_names[i]);
  }
  if (plan.caller_slot >= 0) {
    Value caller = take_named("caller");
    if (caller.is_missing() || caller.is_none()) caller = heap_.undefined("No caller defined");
    slot(plan.caller_slot) = std::move(caller);
  }
  if (plan.kwargs_slot >= 0) {
    auto rest = heap_.dict();
    for (const auto& [key, value] : arguments.named) rest->set(heap_.string(key), value);
    slot(plan.kwargs_slot) = dict_value(std::move(rest));
  } else if (!arguments.named.empty()) {
    fail("macro '{}' takes no keyword argument '{}'", name, arguments.named[0].first);
  }
  if (plan.varargs_slot >= 0) {
    ValueList rest;
    for (size_t i = declared; i < arguments.positional.size(); ++i) rest.push_back(arguments.positional[i]);
    slot(plan.varargs_slot) = heap_.tuple(std::move(rest));
  } else if (arguments.positional.size() > declared) {
    fail("macro '{}' takes not more than {} argument(s)", name, declared);
  }
}

Value Interpreter::call_macro(const MacroObject& macro, const Arguments& arguments) {
  const Heap::Depth depth(heap_);
  const Stmt& statement = macro.statement;
  const FunctionPlan& plan = statement.function;
  auto frame = make_frame(plan.slots, macro.frame);
  bind_macro(plan, statement.name, arguments, *frame);
  const FrameChange change(*this, std::move(frame));
  enter(statement.scope);
  const size_t without_default = plan.parameters.size() - statement.defaults.size();
  for (size_t i = 0; i < plan.parameters.size(); ++i) {
    const auto slot = static_cast<size_t>(plan.parameters[i]);
    if (!frame_->slots[slot].is_missing()) continue;
    Value value = i >= without_default
                      ? eval(*statement.defaults[i - without_default])
                      : heap_.undefined("parameter '" + plan.parameter_names[i] + "' was not provided");
    frame_->slots[slot] = std::move(value);
  }
  Capture capture(*this);
  run_block(statement.body);
  return heap_.string(capture.take());
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  switch (callee.kind()) {
    case Kind::kFunction: {
      const Heap::Depth depth(heap_);
      const auto& function = callee.as<FunctionObject>();
      return function.function(*this, function.self, arguments);
    }
    case Kind::kMacro:
      return call_macro(callee.as<MacroObject>(), arguments);
    case Kind::kLoop: {
      const Heap::Depth depth(heap_);
      const auto& loop = callee.as<LoopObject>();
      if (loop.recursive == nullptr)
        fail("The loop must have the 'recursive' marker to be called recursively.");
      const ValueList bound = bind("loop", arguments, {"iterable"}, 1);
      return heap_.string(run_recursive(*loop.recursive, bound[0], loop.outer, loop.depth0 + 1));
    }
    case Kind::kUndefined:
      fail("{}", callee.as<UndefinedObject>().message);
    default:
      fail("'{}' object is not callable", type_name(callee));
  }
}

}  // namespace fathom::text::jinja
