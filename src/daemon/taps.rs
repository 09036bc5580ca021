//! The devices of segments, as one immutable value for the threads that read and write them.

use crate::io::StopSignal;
use crate::io::device::Device;
use crate::wire::frame::SegmentNumber;
use std::io;

/// The devices of segments, as the data threads know them.
pub struct Taps {
    devices: Vec<(SegmentNumber, Device)>,
    /// Triggered when there are others in their place.
    replaced: StopSignal,
}

impl Taps {
    /// Gives these to the data threads.
    ///
    /// # Errors
    /// The kernel's, when there is no descriptor left.
    pub fn new(devices: Vec<(SegmentNumber, Device)>) -> io::Result<Self> {
        Ok(Self { devices, replaced: StopSignal::new()? })
    }

    /// Iterates over the devices.
    pub fn devices(&self) -> impl Iterator<Item = &(SegmentNumber, Device)> {
        self.devices.iter()
    }

    /// The signal that others are in their place.
    pub fn replaced(&self) -> &StopSignal {
        &self.replaced
    }

    /// Finds the device of a segment.
    pub fn get(&self, segment: SegmentNumber) -> Option<&Device> {
        self.devices.iter().find(|(number, _)| *number == segment).map(|(_, device)| device)
    }
}
