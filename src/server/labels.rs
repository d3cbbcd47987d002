//! Label values of the metrics that come from the configuration.

use std::collections::BTreeSet;

use crate::{config::ServeConfig, metrics::LabelValues, service::SELF_DELIVERY_PROVIDER};
use otpd_rules::Purpose;

/// Returns the names of callers, purposes and providers in the configuration.
pub(super) fn label_values(config: &ServeConfig) -> LabelValues {
    let callers = config.callers.all();
    let mut purposes = BTreeSet::from([Purpose::default().as_str().to_owned()]);
    for caller in &callers {
        let own = caller.policies.purposes.keys();
        let own = own.chain(caller.purposes.iter().flatten());
        purposes.extend(own.map(|purpose| purpose.as_str().to_owned()));
    }
    let gateways = config.delivery.gateways.iter();
    let providers = gateways.map(|gateway| gateway.name.clone());
    LabelValues {
        callers: callers
            .into_iter()
            .map(|caller| caller.name.as_str().to_owned())
            .collect(),
        purposes,
        providers: providers
            .chain([SELF_DELIVERY_PROVIDER.to_owned()])
            .collect(),
    }
}
