#include "text/template/parser.h"

#include <algorithm>
#include <set>

#include "text/template/expression_parser.h"
#include "text/template/lexer.h"

namespace fathom::text::jinja {
namespace {

using Ends = std::initializer_list<const char*>;

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Program run() {
    Program program;
    program.body = parse_until({});
    return program;
  }

 private:
  static StmtPtr make_statement(StmtKind kind, int line) {
    auto statement = std::make_unique<Stmt>();
    statement->kind = kind;
    statement->line = line;
    return statement;
  }

  bool at_end_tag(Ends ends) const {
    return std::any_of(ends.begin(), ends.end(), [&](const char* name) { return at_name(name); });
  }

  void expect_block_end() {
    if (current().kind != TokenKind::kBlockEnd) {
      fail_here(fmt::format("expected the end of the statement, got '{}'", describe(current())));
    }
    take();
  }

  // The body of a statement, from before its "%}" to the name of one of its end tags.
  Block parse_body(Ends ends) {
    skip_operator(":");
    expect_block_end();
    Block body = parse_until(ends);
    if (current().kind == TokenKind::kEnd) {
      std::string names;
      for (const char* name : ends) names += std::string(names.empty() ? "'" : " or '") + name + "'";
      fail_here("Unexpected end of template. Looking for " + names + ".");
    }
    return body;
  }

  Block parse_until(Ends ends) {
    const Nesting nesting(*this);
    Block body;
    while (current().kind != TokenKind::kEnd) {
      const int line = current().line;
      switch (current().kind) {
        case TokenKind::kData:
          body.push_back(make_statement(StmtKind::kText, line));
          body.back()->text = take().text;
          break;
        case TokenKind::kVariableBegin: {
          take();
          auto output = make_statement(StmtKind::kOutput, line);
          output->exprs.push_back(parse_tuple({}));
          if (current().kind != TokenKind::kVariableEnd) {
            fail_here(fmt::format("expected the end of the print statement, got '{}'", describe(current())));
          }
          take();
          body.push_back(std::move(output));
          break;
        }
        default:
          take();  // {%
          if (at_end_tag(ends)) return body;
          body.push_back(parse_statement());
          expect_block_end();
      }
    }
    return body;
  }

  StmtPtr parse_statement() {
    if (current().kind != TokenKind::kName) fail_here("tag name expected");
    const Token tag = take();
    if (tag.text == "for") return parse_for(tag.line);
    if (tag.text == "if") return parse_if(tag.line);
    if (tag.text == "set") return parse_set(tag.line);
    if (tag.text == "macro") return parse_macro(tag.line);
    if (tag.text == "call") return parse_call_block(tag.line);
    if (tag.text == "filter") return parse_filter_block(tag.line);
    if (tag.text == "with") return parse_with(tag.line);
    if (tag.text == "print") return parse_print(tag.line);
    if (tag.text == "generation") {
      auto statement = make_statement(StmtKind::kGeneration, tag.line);
      const FunctionBody function(*this);
      statement->body = parse_body({"endgeneration"});
      take();
      return statement;
    }
    if (tag.text == "break" || tag.text == "continue") {
      if (loops_ == 0) fail_at(tag.line, "'{}' outside of a loop", tag.text);
      return make_statement(tag.text == "break" ? StmtKind::kBreak : StmtKind::kContinue, tag.line);
    }
    for (const char* name : {"block", "extends", "include", "import", "from", "autoescape"}) {
      if (tag.text == name) fail_at(tag.line, "the tag '{}' is not supported in chat templates", tag.text);
    }
    fail_at(tag.line, "Encountered unknown tag '{}'.", tag.text);
  }

  // A body that runs as a function of its own: `break` cannot reach a loop outside it.
  class FunctionBody {
   public:
    explicit FunctionBody(Parser& parser) : parser_(parser), loops_(parser.loops_) { parser.loops_ = 0; }
    ~FunctionBody() { parser_.loops_ = loops_; }
    FunctionBody(const FunctionBody&) = delete;
    FunctionBody& operator=(const FunctionBody&) = delete;

   private:
    Parser& parser_;
    int loops_;
  };

  StmtPtr parse_for(int line) {
    auto loop = make_statement(StmtKind::kFor, line);
    loop->target = parse_target({.end_name = "in"});
    expect_name("in");
    loop->expr = parse_tuple({.conditional = false, .end_name = "recursive"});
    if (skip_name("if")) loop->test = parse_expression();
    loop->recursive = skip_name("recursive");
    const int outer = loops_;
    loops_ = loop->recursive ? 1 : loops_ + 1;
    loop->body = parse_body({"endfor", "else"});
    loops_ = loop->recursive ? 0 : outer;
    if (take().text == "else") {
      loop->else_body = parse_body({"endfor"});
      take();
    }
    loops_ = outer;
    return loop;
  }

  StmtPtr parse_if(int line) {
    auto first = make_statement(StmtKind::kIf, line);
    Stmt* branch = first.get();
    // A long chain of elifs is not deeper than a short one to read, but it is to run and to free.
    for (int count = 0;; ++count) {
      if (count > kMaxDepth / 2) fail_here(fmt::format("more than {} branches", kMaxDepth / 2));
      branch->expr = parse_tuple({.conditional = false});
      branch->body = parse_body({"elif", "else", "endif"});
      const Token tag = take();
      if (tag.text == "elif") {
        branch->else_body.push_back(make_statement(StmtKind::kIf, current().line));
        branch = branch->else_body.back().get();
        continue;
      }
      if (tag.text == "else") {
        branch->else_body = parse_body({"endif"});
        take();
      }
      return first;
    }
  }

  StmtPtr parse_set(int line) {
    auto statement = make_statement(StmtKind::kSet, line);
    statement->target = parse_target({.with_namespace = true});
    if (skip_operator("=")) {
      statement->expr = parse_tuple({});
      return statement;
    }
    statement->kind = StmtKind::kSetBlock;
    statement->expr = parse_filters(nullptr, false);
    statement->body = parse_body({"endset"});
    take();
    return statement;
  }

  void parse_signature(Stmt& statement) {
    expect_operator("(");
    std::set<std::string> names;
    while (!at_operator(")")) {
      if (!statement.exprs.empty()) expect_operator(",");
      ExprPtr parameter = parse_name_target();
      parameter->parameter = true;
      if (!names.insert(parameter->name).second) {
        fail_here(fmt::format("duplicate argument '{}' in function definition", parameter->name));
      }
      if (skip_operator("=")) {
        statement.defaults.push_back(parse_expression());
      } else if (!statement.defaults.empty()) {
        fail_here("non-default argument follows default argument");
      }
      statement.exprs.push_back(std::move(parameter));
    }
    expect_operator(")");
  }

  StmtPtr parse_macro(int line) {
    auto macro = make_statement(StmtKind::kMacro, line);
    macro->name = parse_name_target()->name;
    parse_signature(*macro);
    const FunctionBody function(*this);
    macro->body = parse_body({"endmacro"});
    take();
    return macro;
  }

  StmtPtr parse_call_block(int line) {
    auto block = make_statement(StmtKind::kCallBlock, line);
    if (at_operator("(")) parse_signature(*block);
    block->expr = parse_expression();
    if (block->expr->kind != ExprKind::kCall) fail_at(line, "expected call");
    const FunctionBody function(*this);
    block->body = parse_body({"endcall"});
    take();
    return block;
  }

  StmtPtr parse_filter_block(int line) {
    auto block = make_statement(StmtKind::kFilterBlock, line);
    block->expr = parse_filters(nullptr, true);
    block->body = parse_body({"endfilter"});
    take();
    return block;
  }

  StmtPtr parse_with(int line) {
    auto block = make_statement(StmtKind::kWith, line);
    while (current().kind != TokenKind::kBlockEnd) {
      if (!block->exprs.empty()) expect_operator(",");
      block->exprs.push_back(parse_target({}));
      mark_parameter(*block->exprs.back());
      expect_operator("=");
      block->defaults.push_back(parse_expression());
    }
    block->body = parse_body({"endwith"});
    take();
    return block;
  }

  static void mark_parameter(Expr& target) {
    target.parameter = true;
    for (const auto& child : target.children) mark_parameter(*child);
  }

  StmtPtr parse_print(int line) {
    auto output = make_statement(StmtKind::kOutput, line);
    while (current().kind != TokenKind::kBlockEnd) {
      if (!output->exprs.empty()) expect_operator(",");
      output->exprs.push_back(parse_expression());
    }
    return output;
  }

  int loops_ = 0;  // that `break` could leave here
};

}  // namespace

Program parse_program(std::string_view source) {
  return Parser(tokenize(source)).run();
}

}  // namespace fathom::text::jinja
