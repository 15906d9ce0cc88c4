// The cost of masks: text_mask_bench MODEL_DIR (a folder with tokenizer.json).
//
// Random allowed tokens are drawn for typical schemas; the CPU time of accept and fill of each token is
// taken, in the first output of a schema (what compiling has not prepared is found for the first time) and in
// later ones.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <ctime>
#include <random>

#include "text/grammar/grammar_cache.h"
#include "text/grammar/grammars.h"

namespace fathom::text {
namespace {

struct Case {
  const char* name;
  const char* schema;
};
constexpr Case kCases[] = {
    {"flat object",
     R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
      "email": {"type": "string"}, "member": {"type": "boolean"}}, "required": ["name", "age", "email", "member"]})"},
    {"nested lists",
     R"({"type": "object", "properties": {"title": {"type": "string"}, "steps": {"type": "array", "items":
      {"type": "object", "properties": {"explanation": {"type": "string"}, "result": {"type": "number"}},
       "required": ["explanation", "result"]}}}, "required": ["title", "steps"]})"},
    {"any of three",
     R"({"type": "array", "minItems": 3, "items": {"anyOf": [{"type": "object", "properties": {"kind": {"const": "a"},
      "text": {"type": "string"}}, "required": ["kind", "text"]}, {"type": "number"}, {"enum": ["red", "green", "blue"]}]}})"},
    {"recursive",
     R"({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"label": {"type": "string"},
      "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}}, "required": ["label", "next"]}}})"},
    {"any object", "{\"type\": \"object\"}"},
    {"short strings",
     R"({"type": "object", "properties": {"title": {"type": "string", "maxLength": 80}, "id": {"type": "string", "pattern":
      "^[A-Z]{2}-[0-9]{4}$"}, "day": {"type": "string", "format": "date"}, "color": {"enum": ["red", "green", "blue"]},
      "note": {"type": "string", "minLength": 10, "maxLength": 500}}, "required": ["title", "id", "day", "color", "note"]})"}};

// The thread's own time: others' work on the machine does not count.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Times {
  std::vector<double> first, later;  // microseconds a token
};

double mean(const std::vector<double>& times) {
  double sum = 0.0;
  for (double time : times) sum += time;
  return times.empty() ? 0.0 : sum / static_cast<double>(times.size());
}

double percentile(std::vector<double> times, double share) {
  if (times.empty()) return 0.0;
  std::sort(times.begin(), times.end());
  return times[static_cast<size_t>(share * static_cast<double>(times.size() - 1))];
}

// Up to 400 tokens; strings are ended now and then, or random tokens would never leave them.
void draw(const Tokenizer& tokenizer, const std::shared_ptr<Grammar>& grammar, int32_t eos,
          std::mt19937_64& random, std::vector<double>* times) {
  const auto mask = GrammarMaskSource(grammar, -1).begin();
  std::vector<uint64_t> allowed(num_mask_words(tokenizer.vocab_size()));
  int32_t last = -1;
  for (int i = 0; i < 400 && last != eos; ++i) {
    const double start = cpu_seconds();
    if (last >= 0) FATHOM_CHECK(mask->accept(last), "an allowed token");
    FATHOM_CHECK(mask->fill(allowed).ok(), "too costly");
    times->push_back((cpu_seconds() - start) * 1e6);
    std::vector<int32_t> tokens;
    for (size_t word = 0; word < allowed.size(); ++word) {
      for (uint64_t bits = allowed[word]; bits != 0; bits &= bits - 1)
        tokens.push_back(static_cast<int32_t>(word * 64) + std::countr_zero(bits));
    }
    last = tokens[random() % tokens.size()];
    if (random() % 6 != 0) continue;
    for (int32_t token : tokens) {
      const std::string_view bytes = tokenizer.token_bytes(token);
      if (bytes == "\"" || bytes == "\"," || bytes == "}") last = token;
    }
  }
}

int run(const char* model_dir) {
  auto loaded = Tokenizer::load(model_dir);
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
    return 1;
  }
  const Tokenizer& tokenizer = **loaded;
  const int32_t eos = tokenizer.eos_id().value_or(1);
  double start = cpu_seconds();
  GrammarCache cache(tokenizer, {eos});
  std::printf("%d tokens, trie in %.0f ms\n", tokenizer.vocab_size(), (cpu_seconds() - start) * 1e3);
  std::printf("%-14s %10s %10s | %8s %8s | %8s %8s %8s %8s\n", "schema", "compile", "tokens", "1st mean",
              "max", "mean", "p50", "p99", "max");
  for (const Case& one : kCases) {
    start = cpu_seconds();
    const auto grammar =
        cache.get(one.name, [&] { return json_schema_grammar(nlohmann::ordered_json::parse(one.schema)); });
    FATHOM_CHECK(grammar.ok(), "{}", one.name);
    const double compile = (cpu_seconds() - start) * 1e3;
    std::mt19937_64 random(1);
    Times times;
    draw(tokenizer, *grammar, eos, random, &times.first);
    for (int round = 0; round < 5; ++round) draw(tokenizer, *grammar, eos, random, &times.later);
    std::printf("%-14s %7.2f ms %10zu | %8.1f %8.1f | %8.1f %8.1f %8.1f %8.1f us\n", one.name, compile,
                times.later.size(), mean(times.first), percentile(times.first, 1.0), mean(times.later),
                percentile(times.later, 0.5), percentile(times.later, 0.99), percentile(times.later, 1.0));
  }
  return 0;
}

}  // namespace
}  // namespace fathom::text

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: text_mask_bench MODEL_DIR\n");
    return 2;
  }
  return fathom::text::run(argv[1]);
}
