// swift-tools-version:5.9
// paraedge for iOS and macOS: the native core with the ExecuTorch engine, and a Swift interface. Not compiled or run yet:
// docs/phones.md says what was checked.
import PackageDescription

let package = Package(
    name: "paraedge",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "Paraedge", targets: ["Paraedge"])],
    dependencies: [
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1")
    ],
    targets: [
        .target(
            name: "CParaedge",
            dependencies: [
                .product(name: "executorch", package: "executorch"),
                .product(name: "threadpool", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
            ],
            path: "runtime/native",
            sources: [
                "core/archive.cpp",
                "core/arrivals.cpp",
                "core/bundle.cpp",
                "core/capi.cpp",
                "core/controller.cpp",
                "core/engine.cpp",
                "core/manifest.cpp",
                "core/placement.cpp",
                "core/pool.cpp",
                "core/queue.cpp",
                "core/request.cpp",
                "core/session.cpp",
                "core/sha256.cpp",
                "core/signature.cpp",
                "engines/executorch.cpp",
                "engines/onnxruntime.cpp",
                "programs/executorch_program.cpp",
                "programs/flatbuffer.cpp",
                "programs/litert_program.cpp",
                "programs/onnx_external_data.cpp",
                "programs/onnx_program.cpp",
                "programs/operators.cpp",
                "programs/program.cpp",
                "programs/xnnpack_graph.cpp",
                "third_party/monocypher/monocypher.c",
                "third_party/monocypher/monocypher-ed25519.c",
                "third_party/yyjson/yyjson.c",
            ],
            publicHeadersPath: "include",
            cSettings: [.define("yyjson_api", to: "")],
            cxxSettings: [
                .headerSearchPath("core"),
                .headerSearchPath("engines"),
                .headerSearchPath("programs"),
                .headerSearchPath("third_party/monocypher"),
                .headerSearchPath("third_party/yyjson"),
                .define("yyjson_api", to: ""),
                .define("ET_USE_THREADPOOL"),
                .define("PARAEDGE_EXECUTORCH_VERSION", to: "\"1.5.1\""),
                .define("PARAEDGE_VERSION", to: "\"0.2.0\""),
            ]
        ),
        .target(name: "Paraedge", dependencies: ["CParaedge"], path: "runtime/ios/Paraedge"),
    ],
    cxxLanguageStandard: .cxx20
)
