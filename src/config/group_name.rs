//! The name of a consumer group, or the default one.

use super::Config;

/// Name of a consumer group: text; or `None` for [`Config::group_id`]
/// (`REDPANDA_CONSUMER_GROUP_ID`).
///
/// ```no_run
/// # async fn example(service: ailurus::RedpandaService, handle: fn(ailurus::Message) -> std::future::Ready<()>)
/// # -> ailurus::Result<()> {
/// let named = service.subscribe(["orders"], "billing", handle).await?;
/// let of_the_settings = service.subscribe(["orders"], None, handle).await?;
/// # Ok(())
/// # }
/// ```
pub trait GroupName: sealed::Sealed {
    /// Returns the name, or the default of the settings.
    fn resolve<'a>(&'a self, config: &'a Config) -> &'a str;
}

mod sealed {
    pub trait Sealed {}

    impl<T: AsRef<str> + ?Sized> Sealed for &T {}
    impl Sealed for String {}
    impl Sealed for Option<&str> {}
}

impl<T: AsRef<str> + ?Sized> GroupName for &T {
    fn resolve<'a>(&'a self, _: &'a Config) -> &'a str {
        (*self).as_ref()
    }
}

impl GroupName for String {
    fn resolve<'a>(&'a self, _: &'a Config) -> &'a str {
        self
    }
}

impl GroupName for Option<&str> {
    fn resolve<'a>(&'a self, config: &'a Config) -> &'a str {
        self.unwrap_or(&config.group_id)
    }
}
