//! The node's image list (IMG-85).

use k8s_openapi::api::core::v1::ContainerImage;
use sampan_cri::v1;

const MAX_NAMES: usize = 5;

/// The largest images, at most `most` (-1 for all), each with up to five names, digests before tags.
pub(super) fn node_images(mut images: Vec<v1::Image>, most: i32) -> Vec<ContainerImage> {
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images
        .into_iter()
        .take(usize::try_from(most).unwrap_or(usize::MAX))
        .map(|image| {
            let names: Vec<String> =
                image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_NAMES).collect();
            ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn img_85_largest_first_digests_before_tags() {
        let image = |size, tag: &str| v1::Image {
            size,
            repo_tags: vec![tag.into()],
            repo_digests: vec![format!("{tag}@d")],
            ..Default::default()
        };
        let images = node_images(vec![image(1, "a"), image(2, "b")], -1);
        assert_eq!(images[0].names.as_deref(), Some(&["b@d".to_owned(), "b".to_owned()][..]));
        assert_eq!(images[1].size_bytes, Some(1));
        assert_eq!(node_images((0..60).map(|size| image(size, "x")).collect(), 50).len(), 50);
    }
}
