#include "text/grammar/grammars.h"

#include <map>
#include <set>

#include "text/grammar/json_rules.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/pattern.h"
#include "text/grammar/structural_tags.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tools/marked_splitter.h"

namespace fathom::text {
namespace {

using nlohmann::ordered_json;

Result<Automaton> finish(GrammarBuilder* builder, Fragment body) {
  const int32_t root = builder->declare_rule("root");
  builder->define_rule(root, body);
  return builder->finish(root);
}

Error too_long(size_t bytes) {
  return error(ErrorCode::kInvalidArgument, "the grammar has {} bytes, expected at most {}", bytes,
               kMaxGrammarBytes);
}

void collect_rules(const Pattern& pattern, std::set<std::string>* names) {
  if (pattern.kind == Pattern::Kind::kRule) names->insert(pattern.rule);
  for (const Pattern& child : pattern.children) collect_rules(child, names);
}

}  // namespace

Result<Automaton> json_object_grammar() {
  GrammarBuilder builder;
  JsonRules rules(builder);
  return finish(&builder, rules.object());
}

Result<Automaton> json_schema_grammar(const nlohmann::ordered_json& schema, bool best_effort) {
  GrammarBuilder builder;
  JsonRules rules(builder);
  FATHOM_ASSIGN(const Fragment body, JsonSchema(builder, rules, schema, best_effort).compile());
  return finish(&builder, body);
}

Result<Fragment> regex_fragment(GrammarBuilder& builder, std::string_view text) {
  if (text.size() > kMaxGrammarBytes) return too_long(text.size());
  FATHOM_ASSIGN(const RegexPattern regex, parse_regex(text));
  const PatternEmitter emitter{builder, [&](const CodePoints& set) { return builder.characters(set); },
                               nullptr};
  return emitter.emit(regex, false);
}

Result<Automaton> regex_grammar(std::string_view text) {
  GrammarBuilder builder;
  FATHOM_ASSIGN(const Fragment body, regex_fragment(builder, text));
  return finish(&builder, body);
}

Result<Fragment> ebnf_fragment(GrammarBuilder& builder, std::string_view text) {
  if (text.size() > kMaxGrammarBytes) return too_long(text.size());
  FATHOM_ASSIGN(const auto patterns, parse_ebnf(text));
  if (!patterns.contains("root")) return error(ErrorCode::kInvalidArgument, "EBNF: there is no rule 'root'");
  std::map<std::string, int32_t> rules;
  for (const auto& [name, pattern] : patterns) rules[name] = builder.declare_rule(name);
  for (const auto& [name, pattern] : patterns) {
    std::set<std::string> called;
    collect_rules(pattern, &called);
    for (const std::string& rule : called) {
      if (!rules.contains(rule)) {
        return error(ErrorCode::kInvalidArgument, "EBNF: rule '{}' uses '{}', which is not defined", name,
                     rule);
      }
    }
  }
  const PatternEmitter emitter{builder, [&](const CodePoints& set) { return builder.characters(set); },
                               [&](const std::string& name) { return builder.call(rules.at(name)); }};
  for (const auto& [name, pattern] : patterns) builder.define_rule(rules.at(name), emitter.emit(pattern));
  return builder.call(rules.at("root"));
}

Result<Automaton> ebnf_grammar(std::string_view text) {
  GrammarBuilder builder;
  FATHOM_ASSIGN(const Fragment body, ebnf_fragment(builder, text));
  return finish(&builder, body);
}

Result<Automaton> structural_tag_grammar(const Tokenizer& tokenizer, const ordered_json& tag) {
  GrammarBuilder builder;
  JsonRules rules(builder);
  FATHOM_ASSIGN(const Fragment body, StructuralTags(builder, rules, tokenizer).compile(tag));
  return finish(&builder, body);
}

namespace {

// What a tool's arguments must look like.
Result<ordered_json> arguments_of(const ToolGrammar::Tool& tool) {
  const ordered_json any_object = {{"type", "object"}};
  if (tool.parameters.is_null() || tool.parameters.empty()) return any_object;
  GrammarBuilder scratch;
  JsonRules rules(scratch);
  const Result<Fragment> schema = JsonSchema(scratch, rules, tool.parameters).compile();
  if (schema.ok()) return tool.parameters;
  if (tool.strict) return schema.error().with_context("tool '" + tool.name + "': parameters");
  return any_object;
}

}  // namespace

// The calls are structural tags, as the reference has them.
Result<Automaton> tool_call_grammar(const Tokenizer& tokenizer, const ToolGrammar& grammar) {
  const bool v3 = grammar.format == ToolFormat::kV3;
  if (!v3 && grammar.format != ToolFormat::kV31) {
    return error(
        ErrorCode::kUnsupported,
        "tool calls are constrained in the formats deepseekv3 and deepseekv31 only (--tool-call-parser)");
  }
  for (std::string_view marker : {kCallsBegin, kCallsEnd, kCallBegin, kCallEnd, kToolSeparator}) {
    if (!tokenizer.token_to_id(marker)) {
      return error(ErrorCode::kUnsupported, "the tokenizer has no {}, which constrained tool calls need",
                   marker);
    }
  }
  ordered_json calls = ordered_json::array();
  for (const ToolGrammar::Tool& tool : grammar.tools) {
    FATHOM_ASSIGN(ordered_json arguments, arguments_of(tool));
    const std::string begin =
        v3 ? fmt::format("{}function{}{}\n```json\n", kCallBegin, kToolSeparator, tool.name)
           : fmt::format("{}{}{}", kCallBegin, tool.name, kToolSeparator);
    calls.push_back({{"begin", begin},
                     {"content", {{"type", "json_schema"}, {"json_schema", std::move(arguments)}}},
                     {"end", fmt::format("{}{}", v3 ? "\n```" : "", kCallEnd)}});
  }
  ordered_json block = {{"type", "tag"},
                        {"begin", kCallsBegin},
                        {"content",
                         {{"type", "tags_with_separator"},
                          {"tags", std::move(calls)},
                          {"separator", v3 ? "\n" : ""},
                          {"at_least_one", true},
                          {"stop_after_first", !grammar.parallel}}},
                        {"end", kCallsEnd}};
  if (grammar.required) return structural_tag_grammar(tokenizer, {{"format", std::move(block)}});
  return structural_tag_grammar(tokenizer, {{"format",
                                             {{"type", "triggered_tags"},
                                              {"triggers", ordered_json::array({kCallsBegin})},
                                              {"tags", ordered_json::array({std::move(block)})},
                                              {"stop_after_first", true}}}});
}

}  // namespace fathom::text
