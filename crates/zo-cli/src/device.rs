//! The backends of this build, by name.

use std::error::Error;

use burn::tensor::Device;
#[cfg(any(
    feature = "cuda",
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "rocm"
))]
use burn::tensor::DeviceType;

use crate::exit::Usage;
use crate::values::DEVICES;

/// The device named by `--device`, if this build has it.
///
/// # Errors
/// If the name is unknown, its backend was not compiled in, or the machine has no such device.
pub fn device(name: &str) -> Result<Device, Box<dyn Error>> {
    match name {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "cuda")]
        "cuda" => {
            here(name, "an NVIDIA driver", DeviceType::Cuda)?;
            Ok(Device::cuda(burn::tensor::DeviceIndex::Default))
        }
        #[cfg(feature = "wgpu")]
        "wgpu" => {
            here(
                name,
                "a driver of Vulkan, Metal or DirectX 12",
                DeviceType::Wgpu,
            )?;
            Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
        }
        #[cfg(feature = "vulkan")]
        "vulkan" => {
            here(name, "a driver of Vulkan", DeviceType::Vulkan)?;
            Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice))
        }
        #[cfg(feature = "metal")]
        "metal" => {
            here(name, "a Mac with Metal", DeviceType::Metal)?;
            Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice))
        }
        #[cfg(feature = "rocm")]
        "rocm" => {
            here(name, "AMD's ROCm", DeviceType::Rocm)?;
            Ok(Device::rocm(burn::tensor::DeviceIndex::Default))
        }
        #[allow(
            unreachable_patterns,
            reason = "reached for the devices this build lacks"
        )]
        known if DEVICES.contains(&known) => Err(Usage(format!(
            "this build has no {name}: add `--features {name}` to the cargo command that builds it"
        ))
        .into()),
        other => Err(Usage(format!(
            "unknown device `{other}`: use one of {}",
            DEVICES.join(", ")
        ))
        .into()),
    }
}

/// Refuses a kind of device that the machine does not have: burn would panic at its first use.
#[cfg(any(
    feature = "cuda",
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "rocm"
))]
fn here(name: &str, driver: &str, kind: DeviceType) -> Result<(), String> {
    if !Device::enumerate(kind).is_empty() {
        return Ok(());
    }
    Err(format!(
        "no {name} device on this machine: it needs {driver}; --device flex computes on the CPU"
    ))
}

/// Every backend of this build with its default device.
pub fn devices() -> Vec<(&'static str, Device)> {
    DEVICES
        .into_iter()
        .filter_map(|name| Some((name, device(name).ok()?)))
        .collect()
}

/// Whether the backend of this name computes on the host, with the memory and the threads of everything else.
pub fn is_host(name: &str) -> bool {
    matches!(name, "flex" | "ndarray")
}

/// What the device calls itself: for a GPU the name of the card.
pub fn describe(name: &str, device: &Device) -> String {
    #[cfg(any(
        feature = "cuda",
        feature = "wgpu",
        feature = "vulkan",
        feature = "metal",
        feature = "rocm"
    ))]
    if let Some(identity) = device.identity() {
        return format!("{name}, {}", identity.name);
    }
    let _ = device;
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_absent_devices_are_named() {
        let error = device("abacus").unwrap_err().to_string();
        assert!(error.contains("`abacus`"), "{error}");
        for name in DEVICES {
            if let Err(error) = device(name) {
                let error = error.to_string();
                let (absent, unplugged) = (
                    format!("this build has no {name}: add `--features {name}`"),
                    format!("no {name} device on this machine"),
                );
                assert!(
                    error.contains(&absent) || error.contains(&unplugged),
                    "{error}"
                );
            }
        }
    }
}
