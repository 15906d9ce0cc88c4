#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "text/template/chat_template.h"

namespace fathom::text {
namespace {

using Json = nlohmann::ordered_json;

std::string render(const std::string& source, const Json& variables = Json::object(),
                   RenderLimits limits = {}) {
  const auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return "PARSE " + parsed.error().message;
  const auto text = parsed->render(variables, limits);
  return text.ok() ? *text : "ERROR " + text.error().message;
}

TEST(Template, PrintsValuesAsPythonDoes) {
  EXPECT_EQ(render("{{ 1.0 }} {{ true }} {{ none }} {{ missing }}|"), "1.0 True None |");
  EXPECT_EQ(render("{{ [1, 'a', \"it's\", 1e16, 1e-5, (2,), {'k': none}] }}"),
            "[1, 'a', \"it's\", 1e+16, 1e-05, (2,), {'k': None}]");
  EXPECT_EQ(render("{{ 7 // -2 }} {{ 7 % -2 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ -7.5 // 2 }}"),
            "-4 -1 3.5 1024 -4.0");
}

TEST(Template, TakesWhiteSpaceAsHuggingFaceDoes) {
  EXPECT_EQ(render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(render("a  {{- 'b' -}}  c"), "abc");
  EXPECT_EQ(render("a\n  {%+ if true %}b{% endif %}"), "a\n  b");
  EXPECT_EQ(render("{% raw %}{{ x }}{% endraw %}{# gone #}"), "{{ x }}");
}

TEST(Template, KeepsAssignmentsInTheirScope) {
  EXPECT_EQ(render("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}"), "21");
  EXPECT_EQ(render("{% set ns = namespace(x=1) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% endfor "
                   "%}{{ ns.x }}"),
            "4");
  EXPECT_EQ(render("{% if true %}{% set x = 5 %}{% endif %}{{ x }}"), "5");
  EXPECT_EQ(render("{% macro f(a, b=2) %}{{ a }}{{ b }}{{ x }}{% endmacro %}{% set x = 9 %}{{ f(1) }}"),
            "129");
}

TEST(Template, KnowsItsPlaceInALoop) {
  EXPECT_EQ(render("{% for x in 'abc' %}{{ loop.index }}{{ x }}{{ loop.nextitem }}{{ '' if loop.last else "
                   "',' }}{% endfor %}"),
            "1ab,2bc,3c");
  EXPECT_EQ(render("{% for x in range(9) if x is odd %}{% if x > 5 %}{% break %}{% endif %}{{ x }}{% else "
                   "%}no{% endfor %}"),
            "135");
}

TEST(Template, CountsCodePoints) {
  const Json variables = {{"s", "日本語🙂"}};
  EXPECT_EQ(render("{{ s[1] }}{{ s[-1] }}{{ s | length }}{{ s[::-1] }}", variables), "本🙂4🙂語本日");
  EXPECT_EQ(render("{{ 'straße ΣΑΣ'.upper() }} {{ 'ΣΑΣ'.lower() }}"), "STRASSE ΣΑΣ σας");
}

TEST(Template, KeepsTheOrderOfKeysInJson) {
  const Json variables = {{"tool", {{"type", "function"}, {"a", {1, 2.0, nullptr, "é<"}}}}};
  EXPECT_EQ(render("{{ tool | tojson }}", variables), R"({"type": "function", "a": [1, 2.0, null, "é<"]})");
  EXPECT_EQ(render("{{ tool.a | tojson(indent=1) }}", variables), "[\n 1,\n 2.0,\n null,\n \"é<\"\n]");
}

TEST(Template, PrintsIntegersUpTo64Bits) {
  const Json variables = {{"n", 18446744073709551615ULL}};
  EXPECT_EQ(render("{{ n }} {{ n | tojson }} {{ n > 1 }}", variables),
            "18446744073709551615 18446744073709551615 True");
  EXPECT_NE(render("{{ n + 1 }}", variables).find("64-bit"), std::string::npos);
  EXPECT_NE(render("{{ 9223372036854775807 + 1 }}").find("64-bit"), std::string::npos);
  EXPECT_NE(render("{{ 99 ** 99 }}").find("64-bit"), std::string::npos);
}

TEST(Template, NamesTheLineOfAnError) {
  EXPECT_EQ(render("a\n\n{{ x.y.z }}"), "ERROR chat template, line 3: 'x' is undefined");
  EXPECT_EQ(render("a\n{% if %}"), "PARSE chat template, line 2: Expected an expression, got '%}'");
  EXPECT_EQ(render("{{ 'a' | nofilter }}"), "PARSE chat template, line 1: No filter named 'nofilter'.");
  EXPECT_EQ(render("{{ raise_exception('Roles must alternate') }}"), "ERROR Roles must alternate");
}

TEST(Template, RefusesToChangeValues) {
  EXPECT_EQ(render("{{ xs.append(1) }}", {{"xs", Json::array()}}),
            "ERROR chat template, line 1: access to attribute 'append' of 'list' object is unsafe.");
  EXPECT_EQ(render("{{ ''.__class__ }}|{{ [].__len__ }}"), "|");
}

TEST(Template, NeedsAnObjectOfVariables) {
  EXPECT_FALSE(ChatTemplate::parse("x")->render(Json::array()).ok());
}

// Each of these would take unbounded time, memory or stack.
TEST(Template, BoundsHostileTemplates) {
  const std::string deep(100'000, '(');
  const std::string brackets(100'000, '[');
  std::string sum = "{{ 1";
  for (int i = 0; i < 100'000; ++i) sum += "+1";
  std::string nots = "{{ ";
  for (int i = 0; i < 100'000; ++i) nots += "not ";
  std::string ifs;
  for (int i = 0; i < 100'000; ++i) ifs += "{% if x %}";
  std::string elifs = "{% if x %}";
  for (int i = 0; i < 100'000; ++i) elifs += "{% elif x %}";
  for (const std::string& source :
       {"{{ " + deep, "{{ " + brackets, sum + " }}", nots + "x }}", ifs, elifs + "{% endif %}"}) {
    EXPECT_EQ(render(source).substr(0, 5), "PARSE") << source.substr(0, 40);
  }
  const RenderLimits limits{
      .max_steps = 2'000'000, .max_output_bytes = 1 << 20, .max_memory_bytes = 16 << 20};
  for (const char* source : {
           "{{ 'a' * 1000000000 }}",
           "{{ [0] * 1000000000 }}",
           "{{ 'a'.center(1000000000) }}",
           "{{ '%1000000000d' % 1 }}",
           "{{ '{:1000000000}'.format(1) }}",
           "{{ '%.*f' % (100000000, 1.5) }}",
           "{{ range(1000000000) }}",
           "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
           "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
           "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor "
           "%}{{ ns.x }}",
           "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor "
           "%}{{ ns.x | tojson }}",
           "{% set ns = namespace(x=(1,), y=(1,)) %}{% for i in range(64) %}{% set ns.x = (ns.x, ns.x) %}"
           "{% set ns.y = (ns.y, ns.y) %}{% endfor %}{{ ns.x == ns.y }}{{ {ns.x: 1} }}",
           "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
           "{% macro f(x) %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f(1) %}{{ g() }}{% endcall "
           "%}{% endmacro %}{{ g() }}",
           "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
           "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}",
           "{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor "
           "%}",
           "{{ ('a' * 1000000).replace('', 'bbbbbbbb') }}",
           "{{ '{0:{0:{0:{0}}}}'.format(1) }}",
           "{% set ns = namespace(x=[1]) %}{% for i in range(20000) %}{% set ns.x = ns.x | map('upper') %}{% "
           "endfor %}{{ ns.x | list }}",
           "{{ ('ab,' * 300000).split(',') | map('center', 9999) | join }}",
       }) {
    EXPECT_EQ(render(source, Json::object(), limits).substr(0, 5), "ERROR") << source;
  }
}

// Long chains of values are freed without recursion, and cycles are freed at all (the leak checker sees to
// that).
TEST(Template, FreesLongChainsAndCycles) {
  EXPECT_EQ(
      render(
          "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}ok"),
      "ok");
  EXPECT_EQ(render("{% set ns = namespace(x=1) %}{% for i in range(50000) %}{% set ns.x = namespace(x=ns.x) "
                   "%}{% endfor %}ok"),
            "ok");
  EXPECT_EQ(render("{% set ns = namespace(x=[1]) %}{% for i in range(50000) %}{% set ns.x = ns.x | "
                   "map('upper') %}{% endfor %}ok"),
            "ok");
  EXPECT_EQ(render("{% set ns = namespace(c=1) %}{% for i in range(50000) %}{% set ns.c = cycler(ns.c) %}{% "
                   "endfor %}ok"),
            "ok");
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = ns %}{% macro f() %}{{ f }}{% endmacro %}{% set "
                   "ns.f = f %}"
                   "{% for x in [1] %}{{ loop.changed(loop) }}{% set ns.loop = loop %}{% endfor %}"),
            "True");
}

TEST(Template, BoundsHostileData) {
  Json nested = 1;
  for (int i = 0; i < 5000; ++i) nested = Json::array({std::move(nested)});
  EXPECT_EQ(render("{{ x }}", {{"x", nested}}).substr(0, 5), "ERROR");
  EXPECT_EQ(render("{{ y }}", {{"x", nested}}), "");
  const std::string a(200'000, 'a');
  EXPECT_EQ(render("{{ x in y }}{{ y.rfind(x) }}", {{"x", a.substr(1) + "b"}, {"y", a + a}}), "False-1");
}

TEST(Template, RendersOnManyThreadsAtOnce) {
  std::ifstream file(std::string(FATHOM_SOURCE_DIR) + "/models/demo/chat_template.jinja");
  std::stringstream source;
  source << file.rdbuf();
  const auto parsed = ChatTemplate::parse(source.str());
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  const Json variables = {
      {"messages", {{{"role", "system"}, {"content", "S"}}, {{"role", "user"}, {"content", "U"}}}},
      {"bos_token", "<b>"},
      {"eos_token", "<e>"},
      {"add_generation_prompt", true}};
  const std::string expected = "<b>S<｜User｜>U<｜Assistant｜></think>";
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) EXPECT_EQ(*parsed->render(variables), expected);
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace fathom::text
