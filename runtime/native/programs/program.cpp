// Which check belongs to which engine, and the words for what it finds.
#include "program.h"

#include "engine.h"
#include "formats.h"
#include "onnx_external_data.h"
#include "refusal.h"

namespace paraedge {

OperatorCounts check_program(const std::string& engine, const std::string& file, std::span<const std::byte> program,
                             const std::string& delegate) {
  if (!delegate.empty() && (engine == "onnxruntime" || (engine == "executorch" && executorch_backend(delegate).empty()))) {
    throw Refusal(ErrorCode::unavailable, file + " was made for the delegate '" + delegate + "', which " + engine +
                                              " does not have; export the bundle without --delegate");
  }
  try {
    if (engine == "executorch") return check_executorch(program, executorch_backend(delegate));
    if (engine == "litert") return check_litert(program);
    if (engine == "onnxruntime") {
      if (find_external_data(program) == ExternalData::some) {
        throw Refusal(ErrorCode::integrity,
                      file + " reads weights from another file; export the bundle again");
      }
      return check_onnx(program);
    }
    return {};
  } catch (const Damage& damage) {
    throw Refusal(ErrorCode::integrity, file + " is damaged or hostile: " + damage.problem + "; export the bundle again");
  } catch (const UnknownOperator& found) {
    throw Refusal(ErrorCode::integrity,
                  as_utf8(file + " has the operator '" + found.name.substr(0, 100) + "', which no bundle may have (" + engine +
                          "); replace it in the network (docs/threat-model.md says which ones are left out)"));
  }
}

}  // namespace paraedge
