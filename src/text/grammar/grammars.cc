#include "text/grammar/grammars.h"

#include <map>
#include <set>

#include "text/grammar/json_rules.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/pattern.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tools/marked_splitter.h"

namespace fathom::text {
namespace {

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

Result<Automaton> json_schema_grammar(const nlohmann::ordered_json& schema) {
  GrammarBuilder builder;
  JsonRules rules(builder);
  FATHOM_ASSIGN(const Fragment body, JsonSchema(builder, rules, schema).compile());
  return finish(&builder, body);
}

Result<Automaton> regex_grammar(std::string_view text) {
  if (text.size() > kMaxGrammarBytes) return too_long(text.size());
  FATHOM_ASSIGN(const RegexPattern regex, parse_regex(text));
  GrammarBuilder builder;
  const PatternEmitter emitter{builder, [&](const CodePoints& set) { return builder.characters(set); },
                               nullptr};
  return finish(&builder, emitter.emit(regex, false));
}

Result<Automaton> ebnf_grammar(std::string_view text) {
  if (text.size() > kMaxGrammarBytes) return too_long(text.size());
  FATHOM_ASSIGN(const auto patterns, parse_ebnf(text));
  if (!patterns.contains("root")) return error(ErrorCode::kInvalidArgument, "EBNF: there is no rule 'root'");
  GrammarBuilder builder;
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
  return builder.finish(rules.at("root"));
}

Result<Automaton> tool_call_grammar(const Tokenizer& tokenizer, const ToolGrammar& grammar) {
  const bool v3 = grammar.format == ToolFormat::kV3;
  if (!v3 && grammar.format != ToolFormat::kV31) {
    return error(
        ErrorCode::kUnsupported,
        "tool calls are constrained in the formats deepseekv3 and deepseekv31 only (--tool-call-parser)");
  }
  GrammarBuilder builder;
  JsonRules rules(builder);
  for (std::string_view marker : {kCallsBegin, kCallsEnd, kCallBegin, kCallEnd, kToolSeparator}) {
    if (!tokenizer.token_to_id(marker)) {
      return error(ErrorCode::kUnsupported, "the tokenizer has no {}, which constrained tool calls need",
                   marker);
    }
  }
  const auto marker = [&](std::string_view text) { return builder.token(*tokenizer.token_to_id(text)); };

  std::vector<Fragment> options;
  for (const ToolGrammar::Tool& tool : grammar.tools) {
    Fragment arguments{};
    bool any = tool.parameters.is_null() || tool.parameters.empty();
    if (!any) {
      Result<Fragment> schema = JsonSchema(builder, rules, tool.parameters).compile();
      if (schema.ok()) {
        arguments = *schema;
      } else if (tool.strict) {
        return schema.error().with_context("tool '" + tool.name + "': parameters");
      } else {
        any = true;
      }
    }
    if (any) arguments = rules.object();
    options.push_back(v3 ? builder.sequence({builder.literal("function"), marker(kToolSeparator),
                                             builder.literal(tool.name + "\n```json\n"), arguments,
                                             builder.literal("\n```")})
                         : builder.sequence({builder.literal(tool.name), marker(kToolSeparator), arguments}));
  }
  const int32_t call = builder.declare_rule("call");
  builder.define_rule(
      call, builder.sequence({marker(kCallBegin), builder.choice(std::move(options)), marker(kCallEnd)}));
  std::vector<Fragment> calls = {marker(kCallsBegin), builder.call(call)};
  if (grammar.parallel) {
    calls.push_back(builder.star(v3 ? builder.sequence({builder.literal("\n"), builder.call(call)})
                                    : builder.call(call)));
  }
  calls.push_back(marker(kCallsEnd));
  const Fragment block = builder.sequence(std::move(calls));
  if (grammar.required) return finish(&builder, block);
  const Fragment text = builder.star(builder.characters({{0, 0x10FFFF}}));
  return finish(&builder, builder.sequence({text, builder.optional(block)}));
}

}  // namespace fathom::text
