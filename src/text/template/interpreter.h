// Runs a resolved program for one render.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <unordered_map>

#include "text/template/arguments.h"
#include "text/template/ast.h"
#include "text/template/value.h"

namespace fathom::text::jinja {

using NativeFunction = Value (*)(Interpreter& interpreter, const Value& self, const Arguments& arguments);

// A function of the engine, or a method with the value it belongs to.
struct FunctionObject : Object {
  FunctionObject(std::string name, Value self, NativeFunction function)
      : name(std::move(name)), self(std::move(self)), function(function) {}
  std::string name;
  Value self;
  NativeFunction function;
};
Value function_value(std::string name, Value self, NativeFunction function);

// A macro or the body of a call block, with the variables around it.
struct MacroObject : Object {
  MacroObject(const Stmt& statement, std::shared_ptr<Frame> frame)
      : statement(statement), frame(std::move(frame)) {}
  const Stmt& statement;
  std::shared_ptr<Frame> frame;
};

class Interpreter {
 public:
  Interpreter(const Program& program, const nlohmann::ordered_json& variables, const RenderLimits& limits)
      : heap_(limits), program_(program), variables_(variables) {}

  // Renders. Throws Failure, with the line where it happened.
  std::string run();

  Heap& heap() { return heap_; }
  Value call(const Value& callee, const Arguments& arguments);
  Value attribute(const Value& object, const std::string& name);  // object.name
  Value item(const Value& object, const Value& key);              // object[key]
  // By name, as `map` and `select` use them.
  Value apply_filter(const Value& name, const Value& input, const Arguments& arguments);
  bool apply_test(const Value& name, const Value& input, const Arguments& arguments);

 private:
  friend struct LoopObject;
  enum class Flow { kNormal, kBreak, kContinue };

  // Redirects output into a text of its own for as long as it lives.
  class Capture {
   public:
    explicit Capture(Interpreter& interpreter);
    ~Capture();
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    std::string take();

   private:
    Interpreter& interpreter_;
    std::string text_;
    std::string* outer_;
    size_t charged_outside_;
  };
  // Runs with another frame for as long as it lives.
  class FrameChange {
   public:
    FrameChange(Interpreter& interpreter, std::shared_ptr<Frame> frame)
        : interpreter_(interpreter), outer_(std::move(interpreter.frame_)) {
      interpreter.frame_ = std::move(frame);
    }
    ~FrameChange() { interpreter_.frame_ = std::move(outer_); }
    FrameChange(const FrameChange&) = delete;
    FrameChange& operator=(const FrameChange&) = delete;

   private:
    Interpreter& interpreter_;
    std::shared_ptr<Frame> outer_;
  };

  // statements.cc
  Flow run_block(const Block& block);
  Flow run_statement(const Stmt& statement);
  Flow run_if(const Stmt& statement);
  Flow run_with(const Stmt& statement);
  Flow run_captured(const Stmt& statement);  // set blocks and filter blocks
  void run_call_block(const Stmt& statement);
  void write(std::string_view text);
  void write(const Value& value);
  void enter(const Scope& scope);
  void leave(const Scope& scope);
  Value resolve(const std::string& name);
  Value& variable(const VariableRef& ref);
  void assign(const Expr& target, Value value);
  std::shared_ptr<Frame> make_frame(int slots, std::shared_ptr<Frame> parent);
  Value call_macro(const MacroObject& macro, const Arguments& arguments);
  void bind_macro(const FunctionPlan& plan, const std::string& name, Arguments arguments, Frame& frame);

  // loops.cc
  Flow run_for(const Stmt& statement);
  std::string run_recursive(const Stmt& statement, const Value& items, std::shared_ptr<Frame> outer,
                            int depth);
  Flow run_items(const Stmt& statement, const Value& items, const std::shared_ptr<Frame>& outer, int depth);
  Value filtered_items(const Stmt& statement, const Value& items, const std::shared_ptr<Frame>& outer);
  Value bind_test_target(const Expr& target, const Value& item, const std::vector<int>& slots, size_t& next);

  // expressions.cc
  Value eval(const Expr& expr);
  Value eval_name(const Expr& expr);
  Value eval_items(const Expr& expr);
  Value eval_dict(const Expr& expr);
  Value eval_slice(const Expr& expr);
  Value eval_call(const Expr& expr, const Value* caller = nullptr);
  Value eval_filter(const Expr& expr, const Value* input = nullptr);
  Value eval_test(const Expr& expr);
  Value eval_binary(const Expr& expr);
  Value eval_logic(const Expr& expr);
  Value eval_unary(const Expr& expr);
  Value eval_concat(const Expr& expr);
  Value eval_compare(const Expr& expr);
  Value eval_conditional(const Expr& expr);
  Arguments eval_arguments(const Expr& expr);

  Heap heap_;  // first: everything below holds values of it
  const Program& program_;
  const nlohmann::ordered_json& variables_;
  std::unordered_map<std::string, Value> resolved_;
  std::shared_ptr<Frame> frame_;
  std::string* out_ = nullptr;
  size_t charged_ = 0;  // bytes of the text at out_ charged to the heap
  int line_ = 0;
};

// The variable `loop`.
struct LoopObject : MutableObject {
  LoopObject(Heap* heap, const Value& items)
      : MutableObject(heap), items(items), walk(iterate(*heap, items)) {}
  ~LoopObject() override { drop_references(); }
  void drop_references() override;

  bool advance(Value& item);
  int64_t length();
  Value attribute(const Value& self, const std::string& name);

  Value items;
  std::shared_ptr<IteratorObject> walk;
  Value before, current, after;  // after: looked at before its turn
  Value last_changed;
  int64_t index0 = -1;
  int64_t known_length = -1;
  int depth0 = 0;
  const Stmt* recursive = nullptr;  // what calling it runs
  std::shared_ptr<Frame> outer;     // around the loop
};

// attributes.cc: the Python attribute of a value, or kMissing. Methods that change a value are kUndefined, as
// the sandbox has it.
Value native_attribute(Interpreter& interpreter, const Value& object, const std::string& name);
// string_methods.cc: a method of text by name, or null.
NativeFunction find_string_method(const std::string& name);
// globals.cc: range, dict, namespace, ...; kMissing for another name.
Value global_function(const std::string& name);

}  // namespace fathom::text::jinja
