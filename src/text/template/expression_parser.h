// The part of the parser that reads expressions. Precedence, from loose to tight: inline if, or, and, not,
// comparisons, + -, ~, * / // %, **, unary signs, then subscripts, calls, filters and tests.
#pragma once

#include <initializer_list>
#include <vector>

#include "text/template/ast.h"
#include "text/template/lexer.h"

namespace fathom::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  // Native recursion while parsing, and the depth of the trees that evaluation will recurse into.
  static constexpr int kMaxNesting = 100;
  static constexpr int kMaxDepth = 400;

  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool at_operator(const char* text) const { return current().is_operator(text); }
  bool at_name(const char* text) const { return current().is_name(text); }
  bool skip_operator(const char* text);
  bool skip_name(const char* text);
  void expect_operator(const char* text);
  void expect_name(const char* text);
  std::string expect_any_name();
  [[noreturn]] void fail_here(const std::string& message) const;
  static std::string describe(const Token& token);

  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };

  struct TupleRules {
    bool targets = false;        // names and literals only: what can be assigned to
    bool conditional = true;     // may hold an inline if
    bool parenthesised = false;  // may be empty
    bool with_namespace = false;
    const char* end_name = nullptr;  // a name that ends it
  };
  ExprPtr parse_tuple(const TupleRules& rules);
  ExprPtr parse_expression(bool conditional = true);
  ExprPtr parse_target(const TupleRules& rules);
  ExprPtr parse_name_target();
  ExprPtr parse_filters(ExprPtr node, bool start_inline);
  static void mark_store(Expr& target);

 private:
  ExprPtr make(ExprKind kind, int line) const;
  ExprPtr finish(ExprPtr node) const;  // works out the depth
  ExprPtr pair(ExprKind kind, int line, ExprPtr left, ExprPtr right) const;
  ExprPtr parse_conditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filter);
  ExprPtr parse_primary(bool with_namespace);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filter_expression(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_subscripted(ExprPtr node, int line);
  ExprPtr parse_call(ExprPtr node);
  ExprPtr parse_test(ExprPtr node);
  void parse_arguments(Expr& call);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace fathom::text::jinja
