// Images of Core Graphics, and a camera's, as what a bundle reads.
import CParaedge
import CoreGraphics
import CoreImage
import CoreVideo
import Foundation

extension ModelBundle {
    /// What the model reads of an upright image, for ``Session/predict(_:budget:)``: uint8 (H, W, C), transparent pixels on
    /// white. Core Graphics scales it: it comes near what paraedge does in Python and Java, and is not equal to it.
    ///
    /// - Throws: ``ParaedgeError``: the bundle reads no image, or one of other channels than 1 or 3.
    public func pixels(of image: CGImage) throws -> Data {
        let shape = inputShape  // (1, C, H, W)
        guard pe_bundle_input_kind(handle) == Int32(PE_INPUT_IMAGE), shape.count == 4, [1, 3].contains(shape[1]) else {
            throw ParaedgeError(.input, "the bundle reads \(shape), not an image of 1 or 3 channels")
        }
        let (height, width) = (shape[2], shape[3])
        guard let context = CGContext(
            data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
            space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        else {
            throw ParaedgeError(.input, "Core Graphics makes no image of \(width) x \(height) pixels; free memory")
        }
        let whole = CGRect(x: 0, y: 0, width: width, height: height)
        context.setFillColor(red: 1, green: 1, blue: 1, alpha: 1)
        context.fill(whole)
        context.interpolationQuality = .high
        context.draw(middle(of: image, width: width, height: height), in: whole)
        return withExtendedLifetime(context) {  // it owns what is read
            let rgbx = UnsafeBufferPointer(
                start: context.data!.assumingMemoryBound(to: UInt8.self), count: 4 * width * height)
            return ModelBundle.values(rgbx, channels: shape[1])
        }
    }

    /// The same of a frame of the camera, which has to be upright: `videoRotationAngle` of its connection turns it.
    public func pixels(of frame: CVPixelBuffer) throws -> Data {
        let image = CIImage(cvPixelBuffer: frame)
        guard let made = ModelBundle.renderer.createCGImage(image, from: image.extent) else {
            throw ParaedgeError(.input, "Core Image does not read a frame of format \(CVPixelBufferGetPixelFormatType(frame))")
        }
        return try pixels(of: made)
    }

    private static let renderer = CIContext()

    /// What the model was trained to see: all of it, or the largest middle part of the model's proportions.
    private func middle(of image: CGImage, width: Int, height: Int) -> CGImage {
        guard cropsImages else { return image }
        let scale = min(Double(image.width) / Double(width), Double(image.height) / Double(height))
        let columns = max(1, Int((Double(width) * scale).rounded(.toNearestOrEven)))
        let rows = max(1, Int((Double(height) * scale).rounded(.toNearestOrEven)))
        let part = CGRect(
            x: (image.width - columns) / 2, y: (image.height - rows) / 2, width: columns, height: rows)
        return image.cropping(to: part) ?? image
    }

    /// RGB without the fourth byte, or grey by the weights that Python uses.
    private static func values(_ rgbx: UnsafeBufferPointer<UInt8>, channels: Int) -> Data {
        var values = Data(capacity: rgbx.count / 4 * channels)
        for at in stride(from: 0, to: rgbx.count, by: 4) {
            let (red, green, blue) = (rgbx[at], rgbx[at + 1], rgbx[at + 2])
            if channels == 3 {
                values.append(contentsOf: [red, green, blue])
            } else {
                values.append(UInt8((Int(red) * 19595 + Int(green) * 38470 + Int(blue) * 7471 + 0x8000) >> 16))
            }
        }
        return values
    }
}
