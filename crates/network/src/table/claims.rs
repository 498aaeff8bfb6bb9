//! Who wants which element of which map. Two may want the same one (a pod behind two Services; two Services with the
//! same external address): the first one has it, and the other when that is gone.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::nft::{Data, Transaction};

/// A map or set of the table, and a key.
pub(crate) type Place = (&'static str, Vec<u8>);
/// An element: where, and what it leads to.
pub(crate) type Element = (Place, Data);

/// All wanted elements.
#[derive(Default)]
pub(crate) struct Claims {
    wanted: HashMap<Place, Vec<(String, Data)>>,
    owned: HashMap<String, Vec<Place>>,
    /// What was in force when [`changes`](Claims::changes) was asked last, for what changed since.
    before: HashMap<Place, Option<Data>>,
}

/// The elements of each map that have to go, and those that have to come.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) gone: BTreeMap<&'static str, Vec<(Vec<u8>, Data)>>,
    pub(crate) new: BTreeMap<&'static str, Vec<(Vec<u8>, Data)>>,
}

impl Claims {
    /// An owner wants these elements, and no others any more.
    pub(crate) fn take(&mut self, owner: &str, elements: Vec<Element>) {
        let wanted: HashMap<Place, Data> = elements.into_iter().collect();
        let held: HashSet<Place> = self.owned.remove(owner).unwrap_or_default().into_iter().collect();
        for place in held.iter().filter(|place| !wanted.contains_key(*place)) {
            self.remember(place);
            if let Some(owners) = self.wanted.get_mut(place) {
                owners.retain(|(other, _)| other != owner);
                if owners.is_empty() {
                    self.wanted.remove(place);
                }
            }
        }
        let mut places: Vec<Place> = Vec::with_capacity(wanted.len());
        for (place, data) in wanted {
            self.remember(&place);
            let owners = self.wanted.entry(place.clone()).or_default();
            match owners.iter_mut().find(|(other, _)| other == owner) {
                Some((_, old)) => *old = data,
                None => owners.push((owner.to_owned(), data)),
            }
            places.push(place);
        }
        if !places.is_empty() {
            self.owned.insert(owner.to_owned(), places);
        }
    }

    fn remember(&mut self, place: &Place) {
        if !self.before.contains_key(place) {
            self.before.insert(place.clone(), self.in_force(place).cloned());
        }
    }

    fn in_force(&self, place: &Place) -> Option<&Data> {
        self.wanted.get(place).and_then(|owners| owners.first()).map(|(_, data)| data)
    }

    /// What changed since this was asked last.
    pub(crate) fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for (place, before) in std::mem::take(&mut self.before) {
            let now = self.in_force(&place);
            if before.as_ref() == now {
                continue;
            }
            let (map, key) = &place;
            if let Some(now) = now {
                changes.new.entry(map).or_default().push((key.clone(), now.clone()));
            }
            if let Some(before) = before {
                changes.gone.entry(map).or_default().push((key.clone(), before));
            }
        }
        changes
    }
}

impl Transaction {
    /// Adds all elements that are wanted.
    pub(crate) fn add_claimed(&mut self, claims: &Claims) {
        let mut maps: BTreeMap<&str, Vec<(Vec<u8>, Data)>> = BTreeMap::new();
        for ((map, key), owners) in &claims.wanted {
            if let Some((_, data)) = owners.first() {
                maps.entry(map).or_default().push((key.clone(), data.clone()));
            }
        }
        maps.iter().for_each(|(map, elements)| self.add_elements(map, elements));
    }

    /// Deletes the elements that have to go.
    pub(crate) fn delete_claimed(&mut self, changes: &Changes) {
        changes.gone.iter().for_each(|(map, elements)| self.delete_elements(map, elements));
    }

    /// Adds the elements that have to come.
    pub(crate) fn add_changed(&mut self, changes: &Changes) {
        changes.new.iter().for_each(|(map, elements)| self.add_elements(map, elements));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(key: u8, data: u8) -> Element {
        (("map", vec![key]), Data::Value(vec![data]))
    }

    #[test]
    fn the_first_owner_has_it_and_the_next_one_inherits() {
        let mut claims = Claims::default();
        claims.take("a", vec![element(1, 1)]);
        claims.take("b", vec![element(1, 2), element(2, 2)]);
        let changes = claims.changes();
        assert_eq!(changes.new["map"].len(), 2);
        assert!(changes.new["map"].contains(&(vec![1], Data::Value(vec![1]))));
        assert!(changes.gone.is_empty());
        claims.take("a", vec![]);
        let changes = claims.changes();
        assert_eq!(changes.gone["map"], [(vec![1], Data::Value(vec![1]))]);
        assert_eq!(changes.new["map"], [(vec![1], Data::Value(vec![2]))]);
        claims.take("b", vec![element(1, 2), element(2, 2)]);
        assert_eq!(claims.changes(), Changes::default(), "nothing changed");
        claims.take("b", vec![]);
        assert_eq!(claims.changes().gone["map"].len(), 2);
    }
}
