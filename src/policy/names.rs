//! The network's DNS records in force, beside the names of its members.

use crate::crypto::identity::NodeId;
use crate::wire::record::{RecordData, RecordName, Target};
use std::collections::{BTreeMap, BTreeSet};

/// The records of each name. None of them points to somebody who is no member, or to a name without addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    records: BTreeMap<RecordName, Vec<RecordData>>,
}

impl Names {
    /// Takes those of `records` that point to something.
    pub(super) fn new(
        records: impl IntoIterator<Item = (RecordName, RecordData)>,
        is_member: impl Fn(&NodeId) -> bool,
    ) -> Self {
        let to_members = |(_, data): &(RecordName, RecordData)| match data.target() {
            Some(Target::Member(id)) => is_member(&id),
            Some(Target::Name(_)) | None => true,
        };
        let records: Vec<_> = records.into_iter().filter(to_members).collect();
        let addressed = records.iter().filter(|(_, data)| matches!(data, RecordData::Address(_)));
        let addressed: BTreeSet<RecordName> = addressed.map(|(name, _)| name.clone()).collect();
        let mut names = Self::default();
        for (name, data) in records {
            if !matches!(data.target(), Some(Target::Name(target)) if !addressed.contains(&target)) {
                names.records.entry(name).or_default().push(data);
            }
        }
        names
    }

    /// Lends the records of a name.
    pub fn of(&self, name: &RecordName) -> &[RecordData] {
        self.records.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Iterates over all names that have records.
    pub fn iter(&self) -> impl Iterator<Item = (&RecordName, &[RecordData])> {
        self.records.iter().map(|(name, records)| (name, records.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_points_to_somebody_who_is_gone_is_gone_and_what_points_to_its_alias_too() {
        let name = |text: &str| text.parse::<RecordName>().unwrap();
        let (here, gone) = (NodeId([1; 32]), NodeId([2; 32]));
        let mail = |target| RecordData::Mail { priority: 10, target };
        let records = [
            (name("mail"), RecordData::Address(gone)),
            (name("shop"), RecordData::Address(gone)),
            (name("shop"), RecordData::Address(here)),
            (name("@"), mail(Target::Name(name("mail")))),
            (name("@"), mail(Target::Name(name("shop")))),
            (name("@"), mail(Target::Member(gone))),
        ];
        let names = Names::new(records, |id| *id == here);
        assert_eq!(names.of(&name("mail")), []);
        assert_eq!(names.of(&name("shop")), [RecordData::Address(here)]);
        assert_eq!(names.of(&name("@")), [mail(Target::Name(name("shop")))]);
        assert_eq!(names.iter().count(), 2);
    }
}
