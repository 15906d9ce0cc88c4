#include "engine/step_trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace fathom::engine {
namespace {

using Track = StepTrace::Track;

TEST(StepTrace, KeepsWhatRanBetweenStartAndStop) {
  StepTrace trace("");
  EXPECT_FALSE(trace.wanted());
  EXPECT_FALSE(trace.stop(0).has_value()) << "nothing was started";
  trace.add(Track::kHost, 1, 2, 3, 10.0, 5.0);
  trace.start();
  EXPECT_TRUE(trace.wanted());
  trace.add(Track::kHost, 2, 4, 40, 20.0, 5.0);
  trace.add(Track::kDevice, 2, 4, 40, 22.5, 8.25, 7.0);
  const auto events = trace.stop(3);
  ASSERT_TRUE(events.has_value());
  EXPECT_FALSE(trace.wanted());
  trace.add(Track::kHost, 3, 1, 1, 30.0, 5.0);

  const auto document = nlohmann::json::parse(trace_document({*events, *events}));
  const auto& list = document["traceEvents"];
  ASSERT_EQ(list.size(), 8U);  // two names and two steps, twice
  EXPECT_EQ(list[0]["args"]["name"], "host");
  EXPECT_EQ(list[2]["name"], "step 2");
  EXPECT_EQ(list[2]["pid"], 3);
  EXPECT_EQ(list[3]["tid"], 1);
  EXPECT_EQ(list[3]["dur"], 8.25);
  EXPECT_EQ(list[3]["args"]["tokens"], 40);
  EXPECT_EQ(list[3]["args"]["cpu_us"], 7.0);
  EXPECT_FALSE(trace.stop(3).has_value()) << "once";
}

TEST(StepTrace, ASecondStartBeginsAnew) {
  StepTrace trace("");
  trace.start();
  trace.add(Track::kDevice, 7, 1, 1, 1.0, 1.0);
  trace.start();
  trace.add(Track::kDevice, 8, 1, 1, 2.0, 1.0);
  const auto events = trace.stop(0).value();
  EXPECT_EQ(events.find("step 7"), std::string::npos);
  EXPECT_NE(events.find("step 8"), std::string::npos);
}

}  // namespace
}  // namespace fathom::engine
