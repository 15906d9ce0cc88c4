#include "text/template/interpreter.h"

namespace fathom::text::jinja {

void LoopObject::drop_references() {
  ValueList grave{std::move(items), std::move(before), std::move(current), std::move(after),
                  std::move(last_changed)};
  items = before = current = after = last_changed = Value();
  if (walk != nullptr) grave.emplace_back(Kind::kIterator, std::move(walk));
  if (outer != nullptr) grave.emplace_back(Kind::kFunction, std::move(outer));
  heap->bury(std::move(grave));
}

bool LoopObject::advance(Value& item) {
  if (!after.is_missing()) {
    item = std::move(after);
    after = Value();
  } else if (!walk->advance(item)) {
    return false;
  }
  ++index0;
  before = std::move(current);
  current = item;
  return true;
}

int64_t LoopObject::length() {
  if (known_length >= 0) return known_length;
  known_length = length_of(items);
  if (known_length < 0) {
    // A generator has no length: what is left of it is read ahead.
    ValueList rest;
    for (Value item; walk->advance(item);) rest.push_back(std::move(item));
    known_length = static_cast<int64_t>(rest.size()) + index0 + 1 + (after.is_missing() ? 0 : 1);
    walk = iterate(*heap, heap->list(std::move(rest)));
  }
  return known_length;
}

Value LoopObject::attribute(const Value& self, const std::string& name) {
  const auto peek = [&]() -> const Value& {
    if (after.is_missing()) {
      Value item;
      if (walk->advance(item)) after = std::move(item);
    }
    return after;
  };
  if (name == "index") return Value::integer(index0 + 1);
  if (name == "index0") return Value::integer(index0);
  if (name == "first") return Value::boolean(index0 == 0);
  if (name == "last") return Value::boolean(peek().is_missing());
  if (name == "length") return Value::integer(length());
  if (name == "revindex") return Value::integer(length() - index0);
  if (name == "revindex0") return Value::integer(length() - index0 - 1);
  if (name == "depth") return Value::integer(depth0 + 1);
  if (name == "depth0") return Value::integer(depth0);
  if (name == "previtem") return index0 == 0 ? heap->undefined("there is no previous item") : before;
  if (name == "nextitem") return peek().is_missing() ? heap->undefined("there is no next item") : after;
  if (name == "cycle") {
    return function_value(
        name, self, [](Interpreter&, const Value& loop, const Arguments& arguments) -> Value {
          if (arguments.positional.empty() || !arguments.named.empty()) fail("no items for cycling given");
          const auto count = static_cast<int64_t>(arguments.positional.size());
          return arguments.positional[static_cast<size_t>(loop.as<LoopObject>().index0 % count)];
        });
  }
  if (name == "changed") {
    return function_value(
        name, self, [](Interpreter& run, const Value& loop, const Arguments& arguments) -> Value {
          if (!arguments.named.empty()) fail("changed() takes no keyword arguments");
          auto& object = loop.as<LoopObject>();
          Value now = run.heap().tuple(arguments.positional);
          if (!object.last_changed.is_missing() && equals(run.heap(), object.last_changed, now)) {
            return Value::boolean(false);
          }
          object.last_changed = std::move(now);
          return Value::boolean(true);
        });
  }
  return Value();
}

Interpreter::Flow Interpreter::run_for(const Stmt& statement) {
  const Value items = eval(*statement.expr);
  line_ = statement.line;
  if (!statement.recursive) return run_items(statement, items, frame_, 0);
  write(std::string_view(run_recursive(statement, items, frame_, 0)));
  return Flow::kNormal;
}

std::string Interpreter::run_recursive(const Stmt& statement, const Value& items,
                                       std::shared_ptr<Frame> outer, int depth) {
  const FrameChange change(*this, make_frame(statement.function.slots, outer));
  Capture capture(*this);
  run_items(statement, items, outer, depth);
  return capture.take();
}

// Puts an item into the variables that the loop's test sees. Returns it as Jinja rebuilds it from them: what
// a target with several names took apart comes back as a tuple.
Value Interpreter::bind_test_target(const Expr& target, const Value& item, const std::vector<int>& slots,
                                    size_t& next) {
  if (target.kind == ExprKind::kName) {
    frame_->slots[static_cast<size_t>(slots[next++])] = item;
    return item;
  }
  ValueList items = to_list(heap_, item);
  if (items.size() != target.children.size()) {
    fail("cannot unpack {} values into {} names", items.size(), target.children.size());
  }
  for (size_t i = 0; i < items.size(); ++i)
    items[i] = bind_test_target(*target.children[i], items[i], slots, next);
  return heap_.tuple(std::move(items));
}

// The items that pass the loop's test, found as the loop asks for them: the test sees what the body did
// before.
Value Interpreter::filtered_items(const Stmt& statement, const Value& items,
                                  const std::shared_ptr<Frame>& outer) {
  struct Walk {
    std::shared_ptr<Frame> frame;
    std::shared_ptr<IteratorObject> source;
  };
  auto walk = std::make_shared<Walk>();
  return heap_.iterator("generator", [this, &statement, items, outer, walk](Value& item) {
    const bool starting = walk->frame == nullptr;
    if (starting) walk->frame = make_frame(statement.test_function.slots, outer);
    const FrameChange change(*this, walk->frame);
    if (starting) {
      enter(statement.test_scope);
      walk->source = iterate(heap_, items);
    }
    Value candidate;
    while (walk->source->advance(candidate)) {
      heap_.step();
      size_t next = 0;
      Value rebuilt =
          bind_test_target(*statement.target, candidate, statement.test_function.parameters, next);
      if (!truthy(eval(*statement.test))) continue;
      item = std::move(rebuilt);
      return true;
    }
    return false;
  });
}

Interpreter::Flow Interpreter::run_items(const Stmt& statement, const Value& all,
                                         const std::shared_ptr<Frame>& outer, int depth) {
  const Value items = statement.test != nullptr ? filtered_items(statement, all, outer) : all;
  std::shared_ptr<LoopObject> loop;
  std::shared_ptr<IteratorObject> walk;
  if (statement.loop_slot >= 0) {
    loop = std::make_shared<LoopObject>(&heap_, items);
    loop->depth0 = depth;
    if (statement.recursive) {
      loop->recursive = &statement;
      loop->outer = outer;
    }
  } else {
    walk = iterate(heap_, items);
  }
  bool nothing_done = true;
  for (Value item; loop != nullptr ? loop->advance(item) : walk->advance(item);) {
    heap_.step();
    assign(*statement.target, std::move(item));
    if (loop != nullptr) frame_->slots[static_cast<size_t>(statement.loop_slot)] = Value(Kind::kLoop, loop);
    enter(statement.scope);
    const Flow flow = run_block(statement.body);
    if (flow == Flow::kBreak) break;
    // As in Jinja, an item that `continue` ends early does not count for the else branch.
    if (flow == Flow::kNormal) nothing_done = false;
  }
  leave(statement.scope);
  if (!nothing_done || statement.else_body.empty()) return Flow::kNormal;
  enter(statement.else_scope);
  const Flow flow = run_block(statement.else_body);
  leave(statement.else_scope);
  return flow;
}

}  // namespace fathom::text::jinja
