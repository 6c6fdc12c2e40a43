//! Medians and percentiles of small samples.

/// The median; `NaN` of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => f64::NAN,
        (1, Some(value)) => *value,
        (_, Some(upper)) => f64::midpoint(sorted.get(middle - 1).copied().unwrap_or(*upper), *upper),
    }
}

/// The smallest value that at least `percent` of the values do not exceed (nearest rank); `NaN` of nothing.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_string(), "2");
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_string(), "2.5");
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_percentile_is_a_value_that_was_measured() {
        let values = (1..=200).map(f64::from).collect::<Vec<_>>();
        assert_eq!(percentile(&values, 99).to_string(), "198");
        assert_eq!(percentile(&values, 50).to_string(), "100");
        assert_eq!(percentile(&[7.0], 99).to_string(), "7");
    }
}
