#include "text/tools/tool_splitter.h"

#include "text/tools/dsml_splitter.h"
#include "text/tools/marked_splitter.h"

namespace fathom::text {

std::unique_ptr<ToolSplitter> make_tool_splitter(ToolFormat format) {
  switch (format) {
    case ToolFormat::kNone:
      return nullptr;
    case ToolFormat::kV3:
    case ToolFormat::kV31:
      return std::make_unique<MarkedSplitter>();
    case ToolFormat::kV32:
      return std::make_unique<DsmlSplitter>(kDsmlFunctionCalls);
    case ToolFormat::kV4:
      return std::make_unique<DsmlSplitter>(kDsmlToolCalls);
  }
  return nullptr;
}

std::span<const std::string_view> tool_openings(ToolFormat format) {
  switch (format) {
    case ToolFormat::kNone:
      return {};
    case ToolFormat::kV3:
    case ToolFormat::kV31:
      return kMarkedOpenings;
    case ToolFormat::kV32:
      return {&kDsmlFunctionCalls.open, 1};
    case ToolFormat::kV4:
      return {&kDsmlToolCalls.open, 1};
  }
  return {};
}

}  // namespace fathom::text
