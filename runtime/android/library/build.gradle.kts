// The Java library, its native library with ExecuTorch linked in, and the classes that know Android.
plugins {
    id("com.android.library")
}

// Where ExecuTorch is installed from its sources, built for arm64-v8a: gradle -Pexecutorch=/path
val executorch = providers.gradleProperty("executorch")

android {
    namespace = "ai.paraedge.android"
    compileSdk = 35
    ndkVersion = "27.2.12479018"
    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
        ndk { abiFilters += "arm64-v8a" }
        externalNativeBuild {
            cmake {
                targets += "paraedge_jni"
                arguments += listOf(
                    "-DPARAEDGE_JAVA=ON",
                    "-DANDROID_STL=c++_static",
                    "-DPARAEDGE_EXECUTORCH=${executorch.get()}",
                )
            }
        }
    }
    sourceSets["main"].java.srcDir("../paraedge/src/main/java")
    externalNativeBuild {
        cmake {
            path = file("../../native/CMakeLists.txt")
            version = "3.31.6"
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }
}

dependencies {
    api("androidx.camera:camera-core:1.4.2")
}
