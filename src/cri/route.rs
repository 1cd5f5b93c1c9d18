//! What happens to a call, by its path alone (rule M7).
//!
//! The path is compared byte by byte, as grpc-go does: no decoding, no query, no second slash. What
//! is not exactly `/service/Method` of a service that is known is refused, never guessed.

use tonic::Code;

use super::Refusal;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Passed through unread.
    Flow,
    /// Passed through unread, with an audit line that names the method.
    FlowUnknown(String),
    /// Judged.
    PullImage,
    /// Answered by containerd, shown if it was admitted.
    ImageStatus,
    /// Not passed through.
    Refuse(Refusal),
}

/// The route of the request path `path`, query included.
pub(super) fn route(path: &str) -> Route {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return unimplemented(path);
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if method.is_empty() || !method.bytes().all(plain) {
        return unimplemented(path);
    }
    match (service, method) {
        ("runtime.v1.RuntimeService", _) => Route::Flow,
        ("runtime.v1.ImageService", "PullImage") => Route::PullImage,
        ("runtime.v1.ImageService", "ImageStatus") => Route::ImageStatus,
        ("runtime.v1.ImageService", "ListImages" | "StreamImages" | "RemoveImage" | "ImageFsInfo") => {
            Route::Flow
        }
        ("runtime.v1.ImageService", method) => {
            if ["Pull", "Import", "Load"].iter().any(|word| method.contains(word)) {
                unimplemented(path)
            } else {
                Route::FlowUnknown(method.chars().take(SHOWN).collect())
            }
        }
        _ => unimplemented(path),
    }
}

fn unimplemented(path: &str) -> Route {
    let shown: String = path.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    Route::Refuse(Refusal::new(Code::Unimplemented, format!("pullgate does not relay {shown}")))
}

/// How many characters of a path are shown.
const SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m7_known_methods_have_their_routes() {
        let table = [
            ("/runtime.v1.RuntimeService/Version", Route::Flow),
            ("/runtime.v1.RuntimeService/NotYetInvented", Route::Flow),
            ("/runtime.v1.RuntimeService/PullSomething", Route::Flow),
            ("/runtime.v1.ImageService/PullImage", Route::PullImage),
            ("/runtime.v1.ImageService/ImageStatus", Route::ImageStatus),
            ("/runtime.v1.ImageService/ListImages", Route::Flow),
            ("/runtime.v1.ImageService/StreamImages", Route::Flow),
            ("/runtime.v1.ImageService/RemoveImage", Route::Flow),
            ("/runtime.v1.ImageService/ImageFsInfo", Route::Flow),
            ("/runtime.v1.ImageService/Describe", Route::FlowUnknown("Describe".into())),
        ];
        for (path, expected) in table {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn m7_everything_else_is_unimplemented_and_names_pullgate() {
        for path in [
            "/runtime.v1.ImageService/PullImages",
            "/runtime.v1.ImageService/StreamPull",
            "/runtime.v1.ImageService/ImportImage",
            "/runtime.v1.ImageService/LoadImage",
            "/runtime.v1.ImageService/PullImage/",
            "/runtime.v1.ImageService/PullImage?x",
            "/runtime.v1.ImageService/%50ullImage",
            "/runtime.v1.ImageService/ImageStatus ",
            "/runtime.v1.ImageService/",
            "/runtime.v1.ImageService",
            "//runtime.v1.ImageService/PullImage",
            "/runtime.v1.imageservice/PullImage",
            "/runtime.v1alpha2.ImageService/PullImage",
            "/runtime.v2.ImageService/ListImages",
            "/runtime.v1alpha2.RuntimeService/Version",
            "/containerd.services.images.v1.Images/Create",
            "/containerd.services.transfer.v1.Transfer/Transfer",
            "/grpc.health.v1.Health/Check",
            "/",
            "*",
            "",
        ] {
            let Route::Refuse(refusal) = route(path) else { panic!("{path} is relayed") };
            assert_eq!(refusal.code, Code::Unimplemented, "{path}");
            assert!(refusal.message.contains("pullgate"), "{path}");
        }
    }
}
