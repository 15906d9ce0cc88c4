#include "text/grammar/structural_tags.h"

#include <algorithm>
#include <map>
#include <set>

#include "text/grammar/grammars.h"
#include "text/grammar/json_schema.h"
#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

using Json = nlohmann::ordered_json;

Error wrong(const std::string& path, std::string_view message) {
  return error(ErrorCode::kInvalidArgument, "{}: {}", path, message);
}

Result<void> check_fields(const Json& object, std::initializer_list<std::string_view> known,
                          const std::string& path) {
  if (!object.is_object()) return wrong(path, "expected an object");
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      return error(ErrorCode::kUnsupported, "{}/{}: this field is not known here", path, key);
  }
  return {};
}

Result<std::string> text_of(const Json& object, const char* field, const std::string& path) {
  const auto it = object.find(field);
  if (it == object.end() || !it->is_string()) return wrong(path + "/" + field, "expected a string");
  return it->get<std::string>();
}

Result<bool> flag_of(const Json& object, const char* field, const std::string& path) {
  const auto it = object.find(field);
  if (it == object.end()) return false;
  if (!it->is_boolean()) return wrong(path + "/" + field, "expected true or false");
  return it->get<bool>();
}

Result<std::vector<std::string>> texts_of(const Json& object, const char* field, const std::string& path) {
  std::vector<std::string> texts;
  const auto it = object.find(field);
  if (it == object.end() || !it->is_array()) return wrong(path + "/" + field, "expected a list of strings");
  for (const Json& text : *it) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty())
      return wrong(path + "/" + field, "expected strings that are not empty");
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

}  // namespace

StructuralTags::Symbols StructuralTags::symbols_of(const std::string& text) const {
  Symbols symbols;
  const auto add_characters = [&](const std::string& bytes) {
    const std::string valid = repair_utf8(bytes);
    for (size_t i = 0; i < valid.size(); i += utf8_length(valid[i]))
      symbols.push_back(decode_utf8(valid.data() + i, utf8_length(valid[i])));
  };
  std::string bytes;
  for (const int32_t id : tokenizer_.encode(text, false)) {
    if (tokenizer_.is_added(id) || tokenizer_.is_special(id)) {
      add_characters(std::exchange(bytes, {}));
      symbols.push_back(-1 - int64_t{id});
    } else {
      bytes += tokenizer_.token_bytes(id);
    }
  }
  add_characters(bytes);
  return symbols;
}

Fragment StructuralTags::literal(const std::string& text) {
  std::vector<Fragment> parts;
  for (const int64_t symbol : symbols_of(text)) {
    if (symbol < 0) {
      parts.push_back(builder_.token(static_cast<int32_t>(-1 - symbol)));
    } else {
      std::string bytes;
      append_utf8(static_cast<char32_t>(symbol), &bytes);
      parts.push_back(builder_.literal(bytes));
    }
  }
  return builder_.sequence(std::move(parts));
}

// Aho and Corasick's automaton ("Efficient string matching", 1975) over characters and markers. A text that a
// stop ends is left there, so no state lies beyond a stop's end.
Result<int32_t> StructuralTags::text_until(const std::vector<std::string>& stops,
                                           const std::vector<int32_t>& goes_on, int32_t open_end,
                                           const std::string& path) {
  struct Node {
    std::map<int64_t, size_t> next;
    size_t fallback = 0;
    int stop = -1;
    int32_t state = -1;
  };
  std::vector<Node> nodes(1);
  std::set<int64_t> alphabet;
  size_t characters = 0;
  for (size_t s = 0; s < stops.size(); ++s) {
    size_t at = 0;
    const Symbols symbols = symbols_of(stops[s]);
    characters += symbols.size();
    if (symbols.empty()) return wrong(path, "an empty text");
    if (characters > kMaxTriggers)
      return wrong(path, fmt::format("more than {} characters of triggers or ends together", kMaxTriggers));
    for (const int64_t symbol : symbols) {
      alphabet.insert(symbol);
      const auto [it, added] = nodes[at].next.try_emplace(symbol, nodes.size());
      at = it->second;
      if (added) nodes.emplace_back();
    }
    if (nodes[at].stop < 0) nodes[at].stop = static_cast<int>(s);
  }
  // Breadth first: a node's fallback is the longest beginning of a stop that its text ends with.
  std::vector<size_t> order = {0};
  for (size_t i = 0; i < order.size(); ++i) {
    for (const auto& [symbol, child] : nodes[order[i]].next) {
      order.push_back(child);
      if (order[i] == 0) continue;
      size_t back = nodes[order[i]].fallback;
      while (back != 0 && !nodes[back].next.contains(symbol)) back = nodes[back].fallback;
      const auto found = nodes[back].next.find(symbol);
      nodes[child].fallback = found == nodes[back].next.end() ? 0 : found->second;
      if (nodes[child].stop < 0) nodes[child].stop = nodes[nodes[child].fallback].stop;
    }
  }
  for (Node& node : nodes) {
    if (node.stop < 0) node.state = builder_.state();
  }
  for (const Node& node : nodes) {
    if (node.state < 0) continue;
    if (open_end >= 0) builder_.link(node.state, open_end);
    CodePoints told_apart;
    for (const int64_t symbol : alphabet) {
      const Node* at = &node;
      while (at != nodes.data() && !at->next.contains(symbol)) at = &nodes[at->fallback];
      const auto found = at->next.find(symbol);
      if (found == at->next.end()) continue;  // as any other character; a marker alone is no text
      const auto c = static_cast<char32_t>(symbol);
      if (symbol >= 0) told_apart.emplace_back(c, c);
      const int stop = nodes[found->second].stop;
      const int32_t to = stop < 0 ? nodes[found->second].state : goes_on[static_cast<size_t>(stop)];
      if (to < 0) continue;
      const Fragment read =
          symbol < 0 ? builder_.token(static_cast<int32_t>(-1 - symbol)) : builder_.characters({{c, c}});
      builder_.link(node.state, read.in);
      builder_.link(read.out, to);
    }
    const Fragment other = builder_.characters(complement(normalize(told_apart)));
    builder_.link(node.state, other.in);
    builder_.link(other.out, nodes[0].state);
  }
  return nodes[0].state;
}

Result<StructuralTags::Tag> StructuralTags::read_tag(const Json& tag, const std::string& path) const {
  FATHOM_TRY(check_fields(tag, {"type", "begin", "content", "end"}, path));
  Tag out;
  out.path = path;
  FATHOM_ASSIGN(out.begin, text_of(tag, "begin", path));
  const auto content = tag.find("content");
  if (content == tag.end()) return wrong(path + "/content", "expected a format");
  out.content = &*content;
  const auto end = tag.find("end");
  if (end != tag.end() && end->is_array()) {
    FATHOM_ASSIGN(out.ends, texts_of(tag, "end", path));
    if (out.ends.empty()) return wrong(path + "/end", "expected a string, or a list of them");
  } else {
    FATHOM_ASSIGN(std::string only, text_of(tag, "end", path));
    out.ends.push_back(std::move(only));
  }
  return out;
}

Result<std::vector<StructuralTags::Tag>> StructuralTags::read_tags(const Json& format,
                                                                   const std::string& path) const {
  const auto list = format.find("tags");
  if (list == format.end() || !list->is_array() || list->empty() || list->size() > kMaxTags)
    return wrong(path + "/tags", fmt::format("expected a list of 1 to {} tags", kMaxTags));
  std::vector<Tag> tags;
  for (size_t i = 0; i < list->size(); ++i) {
    FATHOM_ASSIGN(Tag one, read_tag((*list)[i], fmt::format("{}/tags/{}", path, i)));
    tags.push_back(std::move(one));
  }
  return tags;
}

Result<Fragment> StructuralTags::tag(const Tag& tag, size_t begin) {
  const Fragment opening = literal(tag.begin.substr(begin));
  const bool free_text = tag.content->is_object() && tag.content->value("type", Json()) == "any_text" &&
                         !tag.content->contains("excludes");
  const bool has_end =
      std::none_of(tag.ends.begin(), tag.ends.end(), [](const std::string& end) { return end.empty(); });
  if (free_text && has_end) {
    // The text ends where its end comes first.
    const Fragment out = builder_.empty();
    FATHOM_ASSIGN(const int32_t in,
                  text_until(tag.ends, std::vector<int32_t>(tag.ends.size(), out.in), -1, tag.path + "/end"));
    return builder_.sequence({opening, {in, out.out}});
  }
  FATHOM_ASSIGN(const Fragment content, format(*tag.content, tag.path + "/content"));
  std::vector<Fragment> ends;
  for (const std::string& end : tag.ends) ends.push_back(literal(end));
  return builder_.sequence({opening, content, builder_.choice(std::move(ends))});
}

Result<Fragment> StructuralTags::triggered(const std::vector<std::string>& triggers,
                                           const std::vector<Tag>& tags, bool at_least_one,
                                           bool stop_after_first, const std::string& path) {
  if (triggers.empty()) return wrong(path + "/triggers", "expected one at least");
  std::vector<std::vector<Fragment>> by_trigger(triggers.size());
  for (const Tag& one : tags) {
    const auto trigger = std::find_if(triggers.begin(), triggers.end(),
                                      [&](const std::string& text) { return one.begin.starts_with(text); });
    if (trigger == triggers.end())
      return wrong(one.path + "/begin", fmt::format("'{}' begins with none of the triggers", one.begin));
    FATHOM_ASSIGN(const Fragment body, tag(one, trigger->size()));
    by_trigger[static_cast<size_t>(trigger - triggers.begin())].push_back(body);
  }
  const Fragment out = builder_.empty();
  std::vector<int32_t> bodies(triggers.size(), -1);
  std::vector<int32_t> ends;
  for (size_t i = 0; i < triggers.size(); ++i) {
    if (by_trigger[i].empty()) continue;  // the trigger may not come
    const Fragment body = builder_.choice(std::move(by_trigger[i]));
    bodies[i] = body.in;
    ends.push_back(body.out);
  }
  FATHOM_ASSIGN(const int32_t first,
                text_until(triggers, bodies, at_least_one ? -1 : out.in, path + "/triggers"));
  int32_t again = out.in;
  if (!stop_after_first && at_least_one) {
    FATHOM_ASSIGN(again, text_until(triggers, bodies, out.in, path + "/triggers"));
  } else if (!stop_after_first) {
    again = first;
  }
  for (const int32_t end : ends) builder_.link(end, again);
  return Fragment{first, out.out};
}

Result<Fragment> StructuralTags::compile(const Json& tag) {
  if (!tag.is_object()) return wrong("structural tag", "expected an object");
  if (const auto whole = tag.find("format"); whole != tag.end()) {
    FATHOM_TRY(check_fields(tag, {"type", "format"}, ""));
    return format(*whole, "/format");
  }
  FATHOM_TRY(check_fields(tag, {"type", "structures", "triggers"}, ""));
  const auto structures = tag.find("structures");
  if (structures == tag.end() || !structures->is_array() || structures->empty() ||
      structures->size() > kMaxTags)
    return wrong("/structures", fmt::format("expected a list of 1 to {}, or a format", kMaxTags));
  FATHOM_ASSIGN(const auto triggers, texts_of(tag, "triggers", ""));
  std::deque<Json> contents;
  std::vector<Tag> tags;
  for (size_t i = 0; i < structures->size(); ++i) {
    const Json& one = (*structures)[i];
    const std::string path = fmt::format("/structures/{}", i);
    FATHOM_TRY(check_fields(one, {"begin", "schema", "end"}, path));
    Tag& out = tags.emplace_back();
    out.path = path;
    FATHOM_ASSIGN(out.begin, text_of(one, "begin", path));
    FATHOM_ASSIGN(std::string end, text_of(one, "end", path));
    out.ends.push_back(std::move(end));
    if (!one.contains("schema")) return wrong(path + "/schema", "expected a JSON schema");
    out.content = &contents.emplace_back(Json{{"type", "json_schema"}, {"json_schema", one["schema"]}});
  }
  return triggered(triggers, tags, false, false, "");
}

Result<Fragment> StructuralTags::format(const Json& format, const std::string& path) {
  if (!format.is_object()) return wrong(path, "expected a format, which is an object");
  FATHOM_ASSIGN(const std::string type, text_of(format, "type", path));
  if (depth_ >= kMaxDepth) return wrong(path, fmt::format("formats are nested deeper than {}", kMaxDepth));
  ++depth_;
  struct Leave {
    int& depth;
    ~Leave() { --depth; }
  } leave{depth_};
  if (type == "const_string") {
    FATHOM_TRY(check_fields(format, {"type", "value"}, path));
    FATHOM_ASSIGN(const std::string value, text_of(format, "value", path));
    return literal(value);
  }
  if (type == "json_schema") {
    FATHOM_TRY(check_fields(format, {"type", "json_schema"}, path));
    const auto schema = format.find("json_schema");
    if (schema == format.end()) return wrong(path + "/json_schema", "expected a JSON schema");
    Result<Fragment> body = JsonSchema(builder_, rules_, *schema).compile();
    if (!body.ok()) return body.error().with_context(path + "/json_schema");
    return body;
  }
  if (type == "regex") {
    FATHOM_TRY(check_fields(format, {"type", "pattern"}, path));
    FATHOM_ASSIGN(const std::string pattern, text_of(format, "pattern", path));
    return regex_fragment(builder_, pattern);
  }
  if (type == "grammar") {
    FATHOM_TRY(check_fields(format, {"type", "grammar"}, path));
    FATHOM_ASSIGN(const std::string grammar, text_of(format, "grammar", path));
    return ebnf_fragment(builder_, grammar);
  }
  if (type == "any_text") {
    FATHOM_TRY(check_fields(format, {"type", "excludes"}, path));
    std::vector<std::string> excludes;
    if (format.contains("excludes")) {
      FATHOM_ASSIGN(excludes, texts_of(format, "excludes", path));
    }
    const Fragment out = builder_.empty();
    FATHOM_ASSIGN(const int32_t in, text_until(excludes, std::vector<int32_t>(excludes.size(), -1), out.in,
                                               path + "/excludes"));
    return Fragment{in, out.out};
  }
  if (type == "sequence" || type == "or") {
    FATHOM_TRY(check_fields(format, {"type", "elements"}, path));
    const auto elements = format.find("elements");
    if (elements == format.end() || !elements->is_array() || elements->empty() || elements->size() > kMaxTags)
      return wrong(path + "/elements", fmt::format("expected a list of 1 to {} formats", kMaxTags));
    std::vector<Fragment> parts;
    for (size_t i = 0; i < elements->size(); ++i) {
      FATHOM_ASSIGN(const Fragment part,
                    this->format((*elements)[i], fmt::format("{}/elements/{}", path, i)));
      parts.push_back(part);
    }
    return type == "or" ? builder_.choice(std::move(parts)) : builder_.sequence(std::move(parts));
  }
  if (type == "tag") {
    FATHOM_ASSIGN(const Tag one, read_tag(format, path));
    return tag(one, 0);
  }
  if (type == "triggered_tags") {
    FATHOM_TRY(check_fields(format, {"type", "triggers", "tags", "at_least_one", "stop_after_first"}, path));
    FATHOM_ASSIGN(const auto triggers, texts_of(format, "triggers", path));
    FATHOM_ASSIGN(const auto tags, read_tags(format, path));
    FATHOM_ASSIGN(const bool at_least_one, flag_of(format, "at_least_one", path));
    FATHOM_ASSIGN(const bool stop, flag_of(format, "stop_after_first", path));
    return triggered(triggers, tags, at_least_one, stop, path);
  }
  if (type == "tags_with_separator") {
    FATHOM_TRY(check_fields(format, {"type", "tags", "separator", "at_least_one", "stop_after_first"}, path));
    FATHOM_ASSIGN(const auto tags, read_tags(format, path));
    FATHOM_ASSIGN(const std::string separator, text_of(format, "separator", path));
    FATHOM_ASSIGN(const bool at_least_one, flag_of(format, "at_least_one", path));
    FATHOM_ASSIGN(const bool stop, flag_of(format, "stop_after_first", path));
    // A rule, as it is used twice.
    std::vector<Fragment> options;
    for (const Tag& one : tags) {
      FATHOM_ASSIGN(const Fragment option, tag(one, 0));
      options.push_back(option);
    }
    const int32_t rule = builder_.declare_rule(path + "/tags");
    builder_.define_rule(rule, builder_.choice(std::move(options)));
    Fragment all = builder_.call(rule);
    if (!stop) {
      const Fragment more = builder_.sequence({literal(separator), builder_.call(rule)});
      all = builder_.sequence({all, builder_.star(more)});
    }
    return at_least_one ? all : builder_.optional(all);
  }
  return error(
      ErrorCode::kUnsupported,
      "{}/type: got '{}', expected const_string, json_schema, regex, grammar, any_text, sequence, or, "
      "tag, triggered_tags or tags_with_separator",
      path, type);
}

}  // namespace fathom::text
